#!/usr/bin/env bash
# Downloads the sounds that the embedded codec was trained on: recordings from packages of Debian 12 (bookworm), all
# under free licences (docs/codec.md). Unpacks them into FOLDER, one sub-folder per package: 2.5 GB to download, 1.3 GB on
# disk.
#
#   bash benchmarks/codec_sounds.sh FOLDER     then     ajbench train-codec --sounds FOLDER
set -euo pipefail
folder=${1:?folder for the sounds}
packages="0ad-data asterisk-core-sounds-en-wav bucklespring-data colobot-common-sounds fillets-ng-data
freedroidrpg-data hedgewars-data hydrogen-drumkits laby lmms-common megaglest-data oxygen-sounds pingus-data
sonic-pi-samples sound-theme-freedesktop supertux-data tuxpaint-stamps-default unknown-horizons wesnoth-1.16-data
widelands-data"
mkdir -p "$folder"
cd "$folder"
for package in $packages; do
  [ -d "$package" ] && continue
  apt-get download -q "$package"
  mkdir "$package.part"
  # bare patterns match in any folder; public.zip is where 0 A.D. keeps its sounds
  dpkg-deb --fsys-tarfile "${package}"_*.deb | tar -x -C "$package.part" --wildcards \
    '*.wav' '*.WAV' '*.ogg' '*.oga' '*.flac' '*copyright' '*public.zip' 2> /dev/null || true
  find "$package.part" -name public.zip -execdir python3 -c \
    'import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); z.extractall("audio", [n for n in z.namelist() if n.endswith(".ogg")])' {} \; -delete
  # spoken names of stamps, in a dozen languages: thousands of near copies
  find "$package.part" -name '*_desc*' -delete
  rm "${package}"_*.deb
  mv "$package.part" "$package"
done
