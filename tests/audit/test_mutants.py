"""The tool that judges the audit: what it changes, what it draws, and that it goes on."""

import ast

import pytest

from helpers import judges, mutant_report, mutants
from helpers.judges import Judges, Verdict, audit_in_child
from helpers.mutants import PROJECT, Results, candidates, sample
from helpers.mutations import mutants_of

LOOP = "common/training/loop.py"
SOURCE = '''"""Says what it does."""
def f(a: int, b=True) -> int:
    if a < 1 and b:
        log.info("little: %d", a + 1)
        a = a.clamp(0)
    return g(a, b, strict=True)
'''


@pytest.fixture(scope="module")
def found():
    return candidates()


@pytest.fixture(scope="module")
def drawn(found):
    return sample(found, mutants.COUNT)


def original(file):
    return (PROJECT / file).read_text(encoding="utf-8")


def test_changes_of_a_function():
    changes = [(m.id.split(":")[2], m.diff().split("\n+")[1]) for m in mutants_of("f.py", SOURCE)]
    assert changes == [
        ("constant", "def f(a: int, b=False) -> int:"),
        ("negate", "    if (not (a < 1 and b)):"),
        ("boolean", "    if (a < 1 or b):"),
        ("operand", "    if b:"),
        ("operand", "    if (a < 1):"),
        ("compare", "    if (a <= 1) and b:"),
        ("constant", "    if a < 2 and b:"),
        ("delete", "        pass"),
        ("method", "        a = a"),
        ("constant", "        a = a.clamp(1)"),
        ("argument", "    return a"),
        ("swap", "    return g(b, a, strict=True)"),
    ]


def test_context_and_decorator_go():
    source = (
        "@torch.no_grad()\ndef f(x):\n    with torch.no_grad():\n        x += 1\n    return x\n"
    )
    sources = [mutant.source for mutant in mutants_of("f.py", source)]
    assert source.split("\n", 1)[1] in [text.lstrip("\n") for text in sources]
    assert source.replace("    with torch.no_grad():\n    ", "") in sources


def test_enumeration_is_the_same_each_time(found):
    assert [m.id for m in candidates()] == [m.id for m in found]
    assert len({m.id for m in found}) == len(found) > 2000
    assert not any(" " in m.id for m in found)  # as equivalents.txt has them
    assert all(any(m.file == file for m in found) for file in mutants.FILES if "base" not in file)


def test_id_stays_when_code_elsewhere_changes():
    ids = [m.id for m in mutants_of("f.py", SOURCE)]
    assert [m.id for m in mutants_of("f.py", SOURCE.replace('"""\n', '"""\nx = y\n'))] == ids


def test_each_mutant_is_another_program(drawn):
    plain = {file: ast.dump(ast.parse(original(file))) for file in mutants.FILES}
    for mutant in drawn:
        assert ast.dump(ast.parse(mutant.source)) != plain[mutant.file], mutant.diff()


def test_sample_takes_each_files_share(found, drawn):
    assert len(drawn) == mutants.COUNT >= 300
    assert drawn[:100] == sample(found, 100)
    assert drawn == sample(found[::-1], mutants.COUNT)
    for file in mutants.FILES:
        share = sum(m.file == file for m in found) / len(found)
        assert abs(sum(m.file == file for m in drawn) - share * len(drawn)) <= 1, file


def test_a_third_is_held_back(found, drawn):
    for some in (found, drawn):
        assert 0.28 < sum(m.held_back for m in some) / len(some) < 0.39


def test_equivalents_are_mutants(found):
    assert set(mutants.equivalents()) <= {m.id for m in found}


@pytest.mark.parametrize(
    ("old", "new", "caught"),
    [
        ("self.network.train()\n", "pass\n", Verdict("train and eval mode", "level 1")),
        ("LOOK = 50", "LOOK = missing", Verdict("crashes", "level 1: NameError", True)),
        ("LOOK = 50", "import os; os._exit(1)", Verdict("crashes", "audit", True)),
        ("LOOK = 50", "while True: pass", Verdict("hangs", "audit")),
    ],
)
def test_mutant_is_caught_in_a_child(old, new, caught, tmp_path):
    source = original(LOOP)
    changed = source.replace(old, new, 1)
    assert changed != source
    limit = 3 if caught.caught == "hangs" else judges.LIMIT
    facts = LOOP, changed, ["level 1"], tmp_path / "pictures", "train and eval mode"
    assert audit_in_child(*facts, limit=limit) == (caught, set())


def test_code_as_it_is_passes_in_a_child(tmp_path):
    facts = LOOP, original(LOOP), ["level 1"], tmp_path / "pictures", "train and eval mode"
    verdict, called = audit_in_child(*facts, trace=True)
    assert verdict == Verdict()
    assert (str(PROJECT / LOOP), "Trainer.step") in called
    assert (str(PROJECT / LOOP), "fit") not in called


def test_what_no_configuration_calls_is_not_audited(found, tmp_path):
    asked = Judges(tmp_path, 1, {})
    asked.before["audit"] = {"level 1": {(str(PROJECT / LOOP), "fit")}}
    mutant = next(m for m in found if m.place == "Trainer.step")
    assert asked.audit(mutant) == Verdict(None, "no configuration calls it")


def test_copy_has_the_change_for_the_block(tmp_path):
    asked = Judges(tmp_path, 1, {})
    for source in ("changed = 1\n", "changed = 2\n"):
        with asked._copy_with(LOOP, source) as copy:
            assert (copy / LOOP).read_text(encoding="utf-8") == source
            assert (copy / "tests/audit/test_mutants.py").exists()
        assert (copy / LOOP).read_text(encoding="utf-8") == original(LOOP)


class Asked:
    """A judge that catches mutants of one kind, and is stopped at the third."""

    def __init__(self, stopped=True):
        self.mutants, self.stopped = [], stopped

    def __call__(self, mutant):
        if self.stopped and len(self.mutants) == 2:
            raise KeyboardInterrupt
        self.mutants.append(mutant)
        return Verdict("seen") if ":swap:" in mutant.id else Verdict()


def test_goes_on_where_it_was_stopped(drawn, tmp_path, monkeypatch, capsys):
    some, file, first = drawn[:6], tmp_path / "runs" / "results.jsonl", Asked()
    with pytest.raises(KeyboardInterrupt):
        mutants.judge(some, Results(file), {"audit": first}, 1, reveal=False)
    with file.open("a", encoding="utf-8") as results:
        results.write('{"id": "half a li')
    second = Asked(stopped=False)
    mutants.judge(some, Results(file), {"audit": second}, 1, reveal=False)
    assert first.mutants + second.mutants == some
    out = capsys.readouterr().out
    assert [m.id in out for m in some] == [not m.held_back for m in some]

    monkeypatch.setattr(mutants, "code_of", lambda judge, file: f"{judge}'s code has changed")
    again = Asked(stopped=False)
    mutants.judge(some, Results(file), {"audit": again}, 1, reveal=False)
    assert again.mutants == some


def test_later_judges_see_what_survives(drawn, tmp_path):
    audit, tests = Asked(stopped=False), Asked(stopped=False)
    judges = {"audit": audit, "tests": tests}
    mutants.judge(drawn[:30], Results(tmp_path / "results.jsonl"), judges, 2, reveal=False)
    assert {m.id for m in tests.mutants} == {m.id for m in drawn[:30] if ":swap:" not in m.id}


def verdicts(mutant, judge):
    """What is known of made-up mutants: by kind."""
    kind = mutant.id.split(":")[2]
    caught = {"audit": {"swap": "shapes fit", "delete": "crashes"}, "grader": {"sign": "score"}}
    caught["tests"] = {"constant": "test_it", "negate": "hangs"}
    caught = caught[judge].get(kind)
    return {"judge": judge, "caught": caught, "crash": caught == "crashes"}


def test_summary_counts_what_caught_first(drawn):
    left_out = {drawn[0].id: "why"}
    content = mutant_report.summary(drawn, left_out, verdicts)
    kinds = [m.id.split(":")[2] for m in drawn[1:]]
    total = {key: sum(g[key] for g in content["groups"].values()) for key in mutant_report.COUNTED}
    assert total == {
        "mutants": len(drawn) - 1,
        "audit": kinds.count("swap") + kinds.count("delete"),
        "tests": kinds.count("constant"),
        "grader": kinds.count("sign"),
        "hangs": kinds.count("negate"),
        "crash": kinds.count("delete"),
    }
    assert content["equivalent"] == 1 and content["open"] == 0
    shown = [m.id.split(":")[2] for m in drawn[1:] if not m.held_back]
    assert content["checks"]["shapes fit"] == shown.count("swap")
    unknown = mutant_report.summary(drawn, left_out, lambda mutant, judge: None)
    assert unknown["open"] == len(drawn) - 1


def test_section_gives_shares():
    counts = {"mutants": 10, "audit": 5, "tests": 2, "grader": 1, "hangs": 1, "crash": 3}
    groups = {"shown": counts, "held back": counts | {"audit": 4}}
    content = {
        "day": "2026-01-31",
        "equivalent": 2,
        "open": 0,
        "groups": groups,
        "files": {LOOP: counts},
    }
    text = mutant_report.section(content | {"checks": {"shapes fit": 2}})
    assert "22 mutants" in text
    assert "| shown | 10 | 50% | 70% | 90% | 3 | 1 |" in text
    assert "| held back | 10 | 40% | 60% | 80% | 3 | 1 |" in text
    assert f"| `{LOOP}` | 10 | 50% | 70% | 90% | 3 | 1 |" in text
    assert "| shapes fit | 2 |" in text
