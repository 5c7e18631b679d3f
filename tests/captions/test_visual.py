from fakes import caption_rows

from ajbench.captions.visual import Given, Seen


def test_given_captions_are_those_of_the_column():
    rows = [
        *caption_rows(1),
        *caption_rows(1, visual_caption="  "),
        *caption_rows(1, visual_caption=" a dog "),
    ]
    assert Given().captions(rows) == [None, None, Seen(["a dog"])]
