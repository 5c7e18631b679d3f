#!/usr/bin/env bash
# Downloads the sounds that the embedded codec was trained on: recordings from packages of Debian 12 (bookworm), all
# under free licences (docs/codec.md). Unpacks them into FOLDER, one sub-folder per package: 6 GB to download, 2 GB on
# disk.
#
#   bash benchmarks/codec_sounds.sh FOLDER     then     ajbench train-codec --sounds FOLDER
set -euo pipefail
folder=${1:?folder for the sounds}
packages="0ad-data asterisk-core-sounds-en-wav asterisk-core-sounds-es-wav asterisk-core-sounds-fr-wav
asterisk-core-sounds-it-wav asterisk-core-sounds-ru-wav boswars-data bucklespring-data colobot-common-sounds
fillets-ng-data flightgear-data-base freedroidrpg-data hedgewars-data hydrogen-drumkits
hydrogen-drumkits-effects kanagram khangman klettres-data laby lmms-common lomiri-sounds lordsawar-data
megaglest-data naev-data nexuiz-data openarena-data oxygen-sounds pingus-data pysiogame searchandrescue-data
sonic-pi-samples sound-theme-freedesktop supertux-data supertuxkart-data torcs-data tuxpaint-stamps-default
ufoai-sound unknown-horizons warmux-data warzone2100-data wesnoth-1.16-data widelands-data"
mkdir -p "$folder"
cd "$folder"
for package in $packages; do
  [ -d "$package" ] && continue
  apt-get download -q "$package"
  mkdir "$package.part"
  # bare patterns match in any folder; some games keep their sounds in archives
  dpkg-deb --fsys-tarfile "${package}"_*.deb | tar -x -C "$package.part" --wildcards \
    '*.wav' '*.WAV' '*.ogg' '*.oga' '*.flac' '*copyright' '*.zip' '*.pk3' '*.wz' 2> /dev/null || true
  find "$package.part" \( -name '*.zip' -o -name '*.pk3' -o -name '*.wz' \) -execdir python3 -c \
    'import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); z.extractall("audio", [n for n in z.namelist() if n.endswith((".ogg", ".wav"))])' {} \; -delete
  # spoken names of stamps, in a dozen languages: thousands of near copies
  find "$package.part" -name '*_desc*' -delete
  rm "${package}"_*.deb
  mv "$package.part" "$package"
done
