"""What the tests of bad input share: levels, options that make them tiny, and what is demanded."""

from helpers.projects import PROJECT

LEVELS = {
    int(folder.name[5]): folder for folder in PROJECT.glob("level*_*") if folder.name[5] in "1234"
}
TINY = ["--offline", "--data.limit=60", "--network.image_size=32", "--train.epochs=1"]
TINY += ["--train.precision=float32", "--audit=false"]


def one_line(code, text, *words):
    assert code == 2, text
    assert text.startswith("error: ") and text.count("\n") == 1 and text.endswith("\n"), text
    assert "Traceback" not in text
    assert [word for word in words if str(word) not in text] == [], text
    return text


def on(root):
    return ["--data.name=folder", f"--data.root={root}", *TINY[1:], "--network.weights=none"]
