import re

import pytest
from browser import watched
from fakes import write_result_store

from ajbench.data.store import ClipStore
from ajbench.reporting import clip_list


def listed(tmp_path, **sets):
    real = ClipStore.open(write_result_store(tmp_path / "real", per_class=4))
    stores = {name: ClipStore.open(path) for name, path in sets.items()}
    (tmp_path / "out").mkdir()
    for folder in ("audio", "img"):
        (tmp_path / "out" / folder).mkdir()
    return clip_list.rows(real, stores, tmp_path / "out")


def test_each_generated_clip_has_its_guide_and_a_real_clip_of_its_class(tmp_path):
    guided = write_result_store(tmp_path / "g", "synthetic", parents=True)
    free = write_result_store(tmp_path / "f", "synthetic")
    rows = listed(tmp_path, guided=guided, free=free)
    assert len(rows) == 60
    for row in rows:
        generated, guide, real = (row["sounds"][name] for name in ("generated", "guide", "real"))
        number = row["clip_id"][-1]
        assert generated["clip_id"] == row["clip_id"] == f"synthetic-{row['label']}-{number}"
        assert (guide and guide["clip_id"]) == (
            f"real-{row['label']}-{number}" if row["set"] == "guided" else None
        )
        # Clips 1 and 3 of each class are those of the eval split.
        assert real["clip_id"] == f"real-{row['label']}-{1 if number in '02' else 3}"
        assert (tmp_path / "out" / generated["audio"]).is_file()


def test_a_long_list_has_as_many_clips_of_each_class_and_set(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_list, "CLIPS", 24)
    guided = write_result_store(tmp_path / "g", "synthetic", parents=True)
    rows = listed(tmp_path, a=guided, b=guided)
    of_a = [row["label"] for row in rows if row["set"] == "a"]
    assert len(of_a) == len(rows) - len(of_a) == 12
    assert sorted(map(of_a.count, set(of_a))) == [1] * 8 + [2] * 2


@pytest.fixture
def tab(rendered, chromium):
    page, faults = watched(chromium)
    page.goto((rendered[1] / "clips.html").as_uri())
    yield page
    assert faults == []
    page.close()


def shown(tab):
    return tab.locator("#clips tbody tr:visible small:first-of-type").all_text_contents()


def test_sorting(tab):
    before = shown(tab)
    strength = tab.get_by_role("button", name="Strength")
    strength.click()
    values = tab.locator("td.number").all_text_contents()
    assert values == sorted(values) and set(values) == {"0.6", "1"}
    strength.press("Enter")
    assert tab.locator("td.number").all_text_contents() == sorted(values, reverse=True)
    assert tab.locator("th[aria-sort=descending]").inner_text() == "Strength"
    tab.get_by_role("button", name="Class").click()
    assert sorted(shown(tab)) == sorted(before)
    labels = tab.locator("tbody tr").evaluate_all("rows => rows.map(row => row.dataset.class)")
    assert labels == sorted(labels)


def test_filters(tab):
    tab.get_by_label("Class", exact=True).select_option("dog")
    assert len(shown(tab)) == 6 and tab.get_by_role("status").inner_text() == "6 of 60 shown"
    tab.get_by_label("Clips", exact=True).select_option("noise")
    assert shown(tab) == [f"synthetic-dog-{k}" for k in range(3)]
    tab.get_by_label("Text").fill("SYNTHETIC-DOG-1")
    assert shown(tab) == ["synthetic-dog-1"]
    tab.get_by_label("Text").fill("no such clip")
    assert shown(tab) == [] and tab.get_by_role("status").inner_text() == "0 of 60 shown"


def test_arrows_move_and_enter_plays(tab):
    pictures = tab.locator(".picture")
    pictures.nth(0).focus()
    focus = "document.activeElement.getAttribute('aria-label')"
    for key, name in (
        ("ArrowRight", "chainsaw, guide real-chainsaw-0"),
        ("ArrowRight", "chainsaw, real real-chainsaw-1"),
        ("ArrowDown", "chainsaw, real real-chainsaw-3"),
        ("ArrowLeft", "chainsaw, guide real-chainsaw-1"),
        ("ArrowUp", "chainsaw, guide real-chainsaw-0"),
        ("ArrowUp", "chainsaw, guide real-chainsaw-0"),
    ):
        tab.keyboard.press(key)
        assert tab.evaluate(focus) == f"Play {name}"
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.querySelectorAll('audio')[1].currentTime > 0.1")
    assert tab.locator(".sound.on").count() == 1


def test_one_sound_plays_at_a_time_and_all_can(tab):
    playing = "[...document.querySelectorAll('audio')].filter(one => !one.paused).length"
    pictures = tab.locator(".picture")
    pictures.nth(0).press("Enter")
    pictures.nth(3).press("Enter")
    tab.wait_for_function(f"{playing} === 1")
    seconds = tab.evaluate(
        """Promise.all([...document.querySelectorAll("audio")].map((one) => new Promise((done, fail) => {
          const sound = new Audio(one.src);
          sound.onloadedmetadata = () => done(sound.duration);
          sound.onerror = () => fail(new Error(one.src));
        })))"""
    )
    assert len(seconds) == 150 and set(seconds) == {1.26}


def test_a_sound_stopped_before_it_starts_is_no_error(tab):
    tab.locator(".picture").nth(0).evaluate("picture => { picture.click(); picture.click(); }")
    tab.wait_for_function("[...document.querySelectorAll('audio')].every(one => one.paused)")
    tab.wait_for_timeout(100)


def test_names_are_text(tmp_path, grid_results, chromium):
    name = "<img src=x onerror=alert(1)>"
    sound = {"audio": "a.flac", "image": "data:,", "brief": name, "detail": name, "clip_id": name}
    sound |= {"set": name, "labels": [name], "level_db": -20.0}
    row = {"label": name, "set": name, "clip_id": name, "fidelity": None, "strength": 0.5, "guidance": None}
    rows = [row | {"sounds": {"generated": sound, "guide": None, "real": None}}, row | {"set": "b"}]
    rows[1]["sounds"] = rows[0]["sounds"]
    path = clip_list.render(rows, 2, grid_results[0], tmp_path)
    tab, faults = watched(chromium)
    tab.goto(path.as_uri())
    assert tab.locator("img").count() == 2 and faults == []
    assert tab.locator("td.words").first.inner_text().startswith(name)
    assert not re.search(r"<img src=x", path.read_text())
    tab.close()
