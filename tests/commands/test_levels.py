"""What a level's runs hang on: its own code, packages included."""

from common.levels import code_digest


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_a_levels_packages_are_part_of_its_code(tmp_path):
    level = tmp_path / "level5_mine"
    write(level / "run.py", "from parts import head\n")
    write(level / "parts/head.py", "WIDTH = 1\n")
    before = code_digest(level)
    write(level / "parts/head.py", "# wider\nWIDTH = 1\n")
    for left_out in (".cache/a.py", "parts/.cache/b.py", "parts/__pycache__/c.py"):
        write(level / left_out, "WIDTH = 3\n")
    assert code_digest(level) == before
    (level / "parts").rename(level / "pieces")
    moved = code_digest(level)
    write(level / "pieces/head.py", "WIDTH = 2\n")
    assert len({before, moved, code_digest(level)}) == 3


def test_what_it_imports_of_the_project_is_part_of_its_code(tmp_path):
    level, found = tmp_path / "level5_mine", set()
    write(
        level / "run.py",
        "import os, helpers\nfrom common import (\n    mine,\n)\nfrom kit.parts import a\n",
    )
    for file in ("helpers.py", "common/mine.py", "kit/parts.py", "other.py"):
        write(tmp_path / file, "WIDTH = 1\n")
    for file in ("helpers.py", "common/mine.py", "kit/parts.py"):
        found.add(code_digest(level))
        write(tmp_path / file, "WIDTH = 2\n")
    found.add(code_digest(level))
    assert len(found) == 4
    write(tmp_path / "other.py", "WIDTH = 2\n")
    assert code_digest(level) in found, "which it does not import"


def test_a_package_may_import_another_level(tmp_path):
    level = tmp_path / "level5_mine"
    write(level / "run.py", "from parts import head\n")
    write(level / "parts/head.py", "from level3_other.head import WIDTH\n")
    write(tmp_path / "level3_other/head.py", "WIDTH = 1\n")
    before = code_digest(level)
    write(tmp_path / "level3_other/head.py", "WIDTH = 2\n")
    assert code_digest(level) != before
