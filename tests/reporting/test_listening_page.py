import json
from collections import Counter

import pytest
from browser import violations, watched
from scipy.stats import binomtest

from ajbench.evaluation.listening_sheets import count, read
from ajbench.reporting import listening_page

# Notes which sounds are played: the page itself does not tell.
LISTEN = """window.heard = [];
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  window.heard.push({ file: decodeURIComponent(this.src.split("/").pop()), volume: this.volume });
  return play.call(this);
};"""


@pytest.fixture
def tab(rendered, chromium):
    page, faults = watched(chromium, accept_downloads=True)
    page.add_init_script(LISTEN)
    page.goto((rendered[1] / "listen.html").as_uri())
    yield page
    assert faults == []
    page.close()


def start(tab, task="pair", trials=8, **fields):
    tab.locator(f"input[name=task][value={task}]").check()
    for name, value in {"trials": trials, **fields}.items():
        tab.locator(f"input[name={name}]").fill(str(value))
    tab.get_by_role("button", name="Start").click()
    return tab.evaluate("document.getElementById('number').textContent")


def hear(tab, keys="ab"):
    """Play the sounds of a trial by their keys; return them."""
    before = tab.evaluate("heard.length")
    for key in keys:
        tab.keyboard.press(key)
        tab.wait_for_selector(f"#players .heard[data-key={key}]")
    tab.wait_for_function("!document.querySelector('#answers button').disabled")
    return tab.evaluate("heard")[before:]


def is_real(sound):
    return sound["file"].startswith("real-")


def saved(tab, button, folder):
    with tab.expect_download() as download:
        tab.get_by_role("button", name=button).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_pairs_by_keys_are_counted_right(tab, tmp_path):
    assert start(tab, trials=20, listener="Ada, B.") == "Trial 1 of 20"
    assert violations(tab) == []
    assert tab.locator("#trial").inner_text().count("synthetic-") == 0, "names are not shown"
    places = Counter()
    for trial in range(20):
        a, b = hear(tab)
        assert is_real(a) != is_real(b)
        right = "2" if is_real(a) else "1"
        places[right] += 1
        # 15 of 20 right.
        tab.keyboard.press(right if trial % 4 else {"1": "2", "2": "1"}[right])
    assert places == {"1": 10, "2": 10}
    assert tab.get_by_role("heading", name="Better than chance").is_visible()
    assert violations(tab) == []
    interval = binomtest(15, 20).proportion_ci(method="wilson")
    [cells] = [row.split("\t") for row in tab.locator("#counts").inner_text().splitlines()]
    low, high = (f"{100 * end:.0f}" for end in interval)
    assert cells == ["all", "15", "20", "75 %", f"[{low}, {high}]", "50 %"]
    sheets = [read(saved(tab, f"Save as {kind}", tmp_path)) for kind in ("JSON", "CSV")]
    assert sheets[0] == sheets[1] and sheets[0].listener == "Ada, B." and sheets[0].recipe == "esc10"
    [line] = count(sheets[:1])
    assert (line["n"], line["right"], line["chance"]) == (20, 15, 0.5)
    assert (line["ci_low"], line["ci_high"]) == pytest.approx(tuple(interval))


def test_real_or_generated(tab, tmp_path):
    start(tab, "single", trials=12)
    for _ in range(12):
        [sound] = hear(tab, "a")
        tab.keyboard.press("1" if is_real(sound) else "2")
    rows = [row.split("\t")[:3] for row in tab.locator("#counts").inner_text().splitlines()]
    assert rows == [["all", "12", "12"], ["real", "6", "6"], ["generated", "6", "6"]]
    lines = count([read(saved(tab, "Save as JSON", tmp_path))])
    assert [(line["clips"], line["right"], line["n"]) for line in lines] == [
        ("all", 12, 12), ("real", 6, 6), ("generated", 6, 6)
    ]  # fmt: skip


def test_classes_have_four_options_of_which_one_is_right(tab, tmp_path):
    start(tab, "class", trials=10)
    for _ in range(10):
        [sound] = hear(tab, "a")
        options = [one.replace("\n", "")[:-1] for one in tab.locator("#answers button").all_inner_texts()]
        label = sound["file"].removesuffix(".flac").rsplit("-", 2)[1]
        assert len(set(options)) == 4 and options == sorted(options)
        tab.keyboard.press(str(options.index(label) + 1))
    [line, *_] = count([read(saved(tab, "Save as CSV", tmp_path))])
    assert (line["right"], line["n"], line["chance"]) == (10, 10, 0.25)


def order(tab, **choice):
    start(tab, **choice)
    heard = []
    for _ in range(4):
        heard += hear(tab)
        tab.keyboard.press("1")
    tab.get_by_role("button", name="Stop and count").click()
    assert tab.locator("#counts td").nth(2).inner_text() == "4"
    tab.get_by_role("button", name="New test").click()
    return [sound["file"] for sound in heard]


def test_the_seed_sets_the_order(tab):
    first = order(tab, seed=3)
    assert order(tab, seed=3) == first != order(tab, seed=4)


def test_nothing_is_answered_before_it_is_heard_and_keys_can_be_switched_off(tab):
    start(tab)
    tab.keyboard.press("1")
    tab.keyboard.press("a")
    tab.keyboard.press("1")
    assert tab.locator("#number").inner_text() == "Trial 1 of 8"
    tab.get_by_role("button", name="Stop and count").click()
    assert tab.get_by_role("heading", name="No answers").is_visible()
    assert tab.get_by_role("button", name="Save as JSON").is_disabled()
    tab.get_by_role("button", name="New test").click()
    tab.locator("input[name=keys]").uncheck()
    start(tab)
    before = tab.evaluate("heard.length")
    tab.keyboard.press("a")
    assert tab.evaluate("heard.length") == before
    for name in ("Play A", "Play B"):  # by Tab and Enter
        tab.get_by_role("button", name=name).press("Enter")
        tab.wait_for_selector(f"#players .heard:text('{name}')")
    tab.locator("#answers button:enabled").first.press("Enter")
    assert tab.locator("#number").inner_text() == "Trial 2 of 8"


def test_equal_loudness(tab, rendered):
    text = (rendered[1] / "listen.html").read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    level = {sound["audio"].removeprefix("audio/"): sound["level_db"] for sound in data["sounds"]}
    start(tab)
    pair = hear(tab)
    quieter, louder = sorted(pair, key=lambda sound: level[sound["file"]])
    gain = 10 ** ((level[quieter["file"]] - level[louder["file"]]) / 20)
    assert quieter["volume"] == 1 and louder["volume"] == pytest.approx(gain, abs=1e-3) and gain < 0.99


def test_too_few_sounds_are_told(tmp_path, grid_results, chromium):
    sound = {"audio": "a.flac", "clip_id": "</script>", "set": "G", "labels": ["dog"], "level_db": -20.0}
    row = {"label": "dog", "set": "G", "sounds": {"generated": sound, "guide": None, "real": None}}
    path = listening_page.render([row], grid_results[0], tmp_path)
    tab, faults = watched(chromium)
    tab.goto(path.as_uri())
    assert "too few sounds" in tab.locator("#offer").inner_text()
    assert tab.get_by_role("button", name="Start").is_disabled() and faults == []
    tab.close()
