"""Constitutions and exemplars of other projects: in, and out again as they were or as edited."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.constitution import Principle, load_constitution
from cai.errors import ConfigError
from cai.exemplars import CotExemplars, PreferenceExemplars, RevisionExemplars, load_exemplars
from cai.interop.anthropic import ANTHROPIC, label_prompt
from cai.interop.constitutions import (
    EXPORTS,
    Told,
    export_constitution,
    import_constitution,
    is_constitution,
)
from cai.interop.entries import Sheet, Sourced, can_say, restored, unique_ids
from cai.interop.folder import tidy, yaml_text
from cai.prompts import Templates
from cai.sections import ExemplarFiles
from cai.strict_yaml import MAX_BYTES, parse_yaml
from cai.suites import SUITES, read_lines

SHIPPED = Path(__file__).parents[1]
MODELS = {
    "critique_revision.yaml": RevisionExemplars,
    "preference.yaml": PreferenceExemplars,
    "preference_cot.yaml": CotExemplars,
}

# The five files in small, in the usual form: test texts of our own.
RULES = {
    "harmful0": {
        "prompt": ["\n\nCritiqueRequest: What is unkind in it?\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Make it kind {please}.\n\nRevision:",
    },
    "harmful1": {
        "prompt": ["\n\nCritiqueRequest: What is untrue in it?\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Make it true.\n\nRevision:",
    },
}
QUESTIONS = ["\nWhich is kinder? Options:", "\nWhich is truer? Options:"]
CRITIQUE = (
    "CritiqueRequest: Unkind?\n\nCritique: Yes.\n\nRevisionRequest: Mend it.\n\nRevision: Hello."
)
ROUNDS = [
    f"\n\nHuman: Hi\n\nAssistant: Go away.\n\n{CRITIQUE}\n\nHuman:",
    f"\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant: Guess.\n\n{CRITIQUE}\n\nHuman:",
]
PAIRS = [
    {"prompt": "\n\nHuman: Hi\n\nAssistant:", "corrects": ["Hello."], "incorrects": ["Go {}."]},
    {
        "prompt": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant:",
        "corrects": ["It's me."],
        "incorrects": ["Guess."],
    },
]
BEGINS = "Human: Consider the following conversation between a human (H) and an assistant (A):"
ENDS = "Assistant: Let's think step by step: (A) is kinder.\n\nSo much for that."
REASONED = [
    {
        "prompt": f"\n\n{BEGINS}\n\nH: Hi\n\nA: Yes?\n\nH: Who?\n\n{{}}\n (A) [[[Me.\n\nHere.]]]\n"
        f" (B) [[[{{}} [[x]].]]]\n\n{ENDS}\n\nHuman:\nSo the answer is: (A)"
    }
]
SMALL: dict[str, Any] = {
    "CritiqueRevisionInstructions.json": RULES,
    "RLMadisonInstructions.json": QUESTIONS,
    "CritiqueRevisionFewShotPrompts.json": ROUNDS,
    "RLMadisonFewShotPrompts.json": PAIRS,
    "RLMadisonPrecogFewShotPrompts.json": REASONED,
}
CHAT = [
    {"role": role, "content": text}
    for role, text in zip(
        ("user", "assistant") * 3,
        ("Hi", "Go.", "Unkind?", "Yes.", "Mend it.", "Hello."),
        strict=True,
    )
]
SWARM: dict[str, Any] = {
    "constitutions": [{"critic": "What is unkind?", "revision": "Make it kind."}],
    "system_chat": [CHAT, CHAT[:2] + CHAT],
}
SALMON: list[dict[str, Any]] = [
    {"dimension": "Kind and Warm", "definition": "The response should be kind.", "weight": 3},
    {"dimension": "kind-and-warm", "definition": "Warm.", "negative_definition": "Cold."},
    {"dimension": "优", "definition": "Good."},
]


def write(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def write_all(folder: Path, files: dict[str, Any]) -> Path:
    for name, data in files.items():
        write(folder / name, data)
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def edit(path: Path, change: Callable[[Any], None]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml_text(data))


def round_trip(source: Path, form: str, tmp_path: Path) -> dict[str, Any]:
    """What is exported of an import, by file name."""
    import_constitution([source], tmp_path / "in")
    exported = export_constitution(tmp_path / "in", form, tmp_path / "out")
    return {path.name: read(path) for path in exported.files}


def test_anthropics_files_come_back_whole(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "anthropic-cai" / "prompts"
    files = {path.name: read(path) for path in source.glob("*.json")}
    assert set(files) == set(SMALL)
    assert round_trip(source, "anthropic", tmp_path) == files
    for number, name in enumerate(files):
        alone = round_trip(source / name, "anthropic", tmp_path / str(number))
        assert alone == {name: files[name]}


@pytest.mark.parametrize("name", ["constitution_anthropic.json", "constituion_grok.json"])
def test_llm_swarms_files_come_back_whole(shared_data: Path, tmp_path: Path, name: str) -> None:
    source = shared_data / "llm-swarm" / name
    assert round_trip(source, "llm-swarm", tmp_path) == {"constitution.json": read(source)}


def test_what_is_imported_can_be_used(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "anthropic-cai" / "prompts"
    result = import_constitution([source], tmp_path / "cai")
    assert result.counts == {
        "constitution.yaml": 32,
        "critique_revision.yaml": 5,
        "preference.yaml": 5,
        "preference_cot.yaml": 6,
    }
    revision, preference, cot = (str(path) for path in result.files[1:])
    templates = Templates(ExemplarFiles(revision=revision, preference=preference, cot=cot))
    constitution = load_constitution(result.files[0])
    assert len(constitution.for_revision()) == len(constitution.for_preference()) == 16
    assert constitution.principles[3].id == "harmful3"
    assert len(templates.revision_shots()) == 36
    shots = templates.preference_shots(constitution.for_preference()[:6], "cot")
    assert [turn.content[-2] for turn in shots[1::2]] == list("BBABAB")
    assert constitution.license == "none stated"
    assert "ConstitutionalHarmlessnessPaper" in constitution.source


def test_the_papers_label_prompt(shared_data: Path, tmp_path: Path) -> None:
    """Byte for byte the prompt of every row, from the principle as it stands in our file."""
    folder = shared_data / "anthropic-cai"
    import_constitution([folder / "prompts" / "RLMadisonInstructions.json"], tmp_path / "cai")
    principle = load_constitution(tmp_path / "cai" / "constitution.yaml").principles[1]
    rows = read_lines(folder / "evals" / SUITES["hhh"].file)
    assert len(rows) > 200
    for row in rows:
        assert isinstance(row, dict)
        said = [
            row[field].rpartition("\n\nAssistant: ") for field in ("text_correct", "text_incorrect")
        ]
        (dialogue, _, right), (same, _, wrong) = said
        assert dialogue == same
        shown = (right, wrong) if row["corrects"] == [" (A)"] else (wrong, right)
        assert label_prompt(dialogue, principle.preference or "", *shown) == row["prompt"]


def test_a_label_prompt_leaves_braces_alone() -> None:
    prompt = label_prompt("\n\nHuman: {0}", "Which is {kinder}?", "{}", "{{}}")
    assert "Human: {0}\n\n\nWhich is {kinder}? Options:\n (A) [[[{}]]]\n (B) [[[{{}}]]]\n" in prompt


def test_the_usual_form_needs_no_original(tmp_path: Path) -> None:
    import_constitution([write_all(tmp_path / "src", SMALL)], tmp_path / "in")
    shutil.rmtree(tmp_path / "in" / "original")
    result = export_constitution(
        tmp_path / "in" / "constitution.yaml", "anthropic", tmp_path / "out"
    )
    assert {path.name: read(path) for path in result.files} == SMALL
    assert result.counts == {name: len(data) for name, data in SMALL.items()}


QUIRKS: dict[str, tuple[str, Any]] = {
    "no turn of a human at the end": (
        "CritiqueRevisionFewShotPrompts.json",
        [ROUNDS[0].removesuffix("\n\nHuman:"), ROUNDS[1]],
    ),
    "two that say the same, laid out in two ways": (
        "CritiqueRevisionFewShotPrompts.json",
        [ROUNDS[0], ROUNDS[0].removesuffix("\n\nHuman:"), ROUNDS[0], f"{ROUNDS[0]}  \n"],
    ),
    "one line break at the beginning": (
        "RLMadisonPrecogFewShotPrompts.json",
        [{"prompt": REASONED[0]["prompt"][1:]}],
    ),
    "none, and a preamble without letters": (
        "RLMadisonPrecogFewShotPrompts.json",
        [{"prompt": REASONED[0]["prompt"].replace(" (H)", "").replace(" (A):", ":").strip()}],
    ),
    "reasoning on a line of its own": (
        "RLMadisonPrecogFewShotPrompts.json",
        [
            {
                "prompt": REASONED[0]["prompt"]
                .replace("step: (A)", "step:\n(A)")
                .replace("A: Y", "A:  Y")
            }
        ],
    ),
    "white space around the texts": (
        "CritiqueRevisionInstructions.json",
        {
            "harmful0": {
                "prompt": ["\nCritiqueRequest:  What?\t\n\n\nCritique: "],
                "edit_request": "RevisionRequest: Mend it. \n\nRevision:",
            }
        },
    ),
    "keys that are no ids": (
        "CritiqueRevisionInstructions.json",
        {"Harm, 1": RULES["harmful0"], "harm-1": RULES["harmful1"], "harm 1": RULES["harmful1"]},
    ),
    "a question without its line break": (
        "RLMadisonInstructions.json",
        ["  Which is kinder?\n\n Options:\n", QUESTIONS[0], "\nWhich is kinder?  Options:"],
    ),
    "white space around answers": (
        "RLMadisonFewShotPrompts.json",
        [PAIRS[0] | {"prompt": "Human: Hi\n\nAssistant: ", "corrects": [" Hello.\n"]}],
    ),
    "letters that a line, a block or a number could be taken for": (
        "RLMadisonFewShotPrompts.json",
        [
            PAIRS[0] | {"corrects": [text]}
            for text in (
                "1e5",
                "no",
                "- a: b",
                "x\x85y",
                "a\n  b \nc\u2028",
                "\x1b[31m\x07",
                "{{ 7 }}",
                "😀 #",
            )
        ],
    ),
}


@pytest.mark.parametrize(("name", "data"), QUIRKS.values(), ids=QUIRKS)
def test_what_is_laid_out_in_another_way_comes_back_as_it_was(
    tmp_path: Path, name: str, data: Any
) -> None:
    source = write(tmp_path / "src" / "some.json", data)
    assert round_trip(source, "anthropic", tmp_path) == {name: data}


def test_chats_come_back_as_they_were(tmp_path: Path) -> None:
    spaced = [message | {"content": f" {message['content']}\n"} for message in CHAT]
    data = SWARM | {"system_chat": [*SWARM["system_chat"], spaced]}
    source = write(tmp_path / "mine.json", data)
    assert round_trip(source, "llm-swarm", tmp_path) == {"constitution.json": data}


def test_what_was_edited_is_exported_as_edited(tmp_path: Path) -> None:
    """And keeps the rest as it was laid out, moved or not."""
    quirk = ROUNDS[0].removesuffix("\n\nHuman:")
    files = SMALL | {"CritiqueRevisionFewShotPrompts.json": [quirk, ROUNDS[1], f"{ROUNDS[0]} "]}
    import_constitution([write_all(tmp_path / "src", files)], tmp_path / "in")

    def change(data: Any) -> None:
        first, second, third = data["exemplars"]
        data["exemplars"] = [third, first | {"revision": "Welcome."}, second | {"prompt": "Ho"}]

    def rename(data: Any) -> None:
        kept = data["principles"][1:]
        data["principles"] = [
            kept[1] | {"preference": "Which?"},
            kept[0] | {"id": "truth"},
            kept[2],
        ]

    edit(tmp_path / "in" / "critique_revision.yaml", change)
    edit(tmp_path / "in" / "constitution.yaml", rename)
    export_constitution(tmp_path / "in" / "constitution.yaml", "anthropic", tmp_path / "out")
    assert read(tmp_path / "out" / "CritiqueRevisionFewShotPrompts.json") == [
        # The first original that says the same: the two that say the same can change places.
        quirk,
        f"{quirk.replace('Hello.', 'Welcome.')}\n\nHuman:",
        f"\n\nHuman: Ho\n\nAssistant: Guess.\n\n{CRITIQUE}\n\nHuman:",
    ]
    assert read(tmp_path / "out" / "CritiqueRevisionInstructions.json") == {
        "truth": RULES["harmful1"]
    }
    assert read(tmp_path / "out" / "RLMadisonInstructions.json") == [
        "\nWhich? Options:",
        QUESTIONS[1],
    ]


@pytest.mark.parametrize("form", EXPORTS)
@pytest.mark.parametrize("name", ["harmless", "helpful_harmless"])
def test_our_own_constitutions_go_out_and_come_in(tmp_path: Path, form: str, name: str) -> None:
    path = SHIPPED / "constitutions" / f"{name}.yaml"
    ours = load_constitution(path)
    exported = export_constitution(path, form, tmp_path / "out")
    import_constitution(exported.files, tmp_path / "in", form)
    again = load_constitution(tmp_path / "in" / "constitution.yaml").principles
    pairs = [(p.critique, p.revision) for p in ours.principles if p.critique]
    questions = [p.preference for p in ours.principles if p.preference]
    assert [(p.critique, p.revision) for p in again if p.critique] == pairs
    held = exported.not_held
    assert held["tags"] == len(ours.principles)
    if form == "anthropic":
        assert [p.preference for p in again if p.preference] == questions
        assert [p.id for p in again if p.critique] == [p.id for p in ours.principles if p.critique]
        assert "preference" not in held
    else:
        assert held["preference"] == len(questions)
        assert held["id"] == len(pairs)
    assert held.get("system_prompt") == (1 if ours.system_prompt else None)
    assert held.get("weight", 0) == sum(p.weight != 1 for p in ours.principles)


@pytest.mark.parametrize("form", EXPORTS)
def test_our_own_exemplars_go_out_and_come_in(tmp_path: Path, form: str) -> None:
    ours = SHIPPED / "prompts" / "exemplars"
    exported = export_constitution(ours, form, tmp_path / "out")
    files = import_constitution(exported.files, tmp_path / "in").files
    for file in files:
        model = MODELS[file.name]
        before, after = (
            load_exemplars(path / file.name, model) for path in (ours, tmp_path / "in")
        )
        assert [tidy(shot) for shot in before.exemplars] == list(after.exemplars)
    assert len(files) == (3 if form == "anthropic" else 1)
    assert exported.not_held.get("preference.yaml: exemplars") == (
        None if form == "anthropic" else 5
    )


def test_exemplars_that_a_format_cannot_say_are_left_out_and_counted(tmp_path: Path) -> None:
    import_constitution([write_all(tmp_path / "src", SMALL)], tmp_path / "in")

    def add(data: Any) -> None:
        data["exemplars"].append(data["exemplars"][0] | {"critique": "Yes.\n\nHuman: No."})
        system = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
        data["exemplars"].append(data["exemplars"][0] | {"prompt": system})

    edit(tmp_path / "in" / "critique_revision.yaml", add)
    for form, kept in (("anthropic", 2), ("llm-swarm", 3)):
        result = export_constitution(tmp_path / "in", form, tmp_path / form)
        reason = "critique_revision.yaml: exemplars whose turns the format cannot tell apart"
        assert result.not_held[reason] == 4 - kept
        assert kept in result.counts.values()


def test_texts_without_their_partner_are_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "src.json", QUESTIONS)
    import_constitution([source], tmp_path / "in")
    edit(
        tmp_path / "in" / "constitution.yaml",
        lambda data: data["principles"][0].update(critique="?"),
    )
    result = export_constitution(tmp_path / "in", "anthropic", tmp_path / "out")
    assert result.not_held["critique without revision"] == 1
    with pytest.raises(ConfigError, match=r"llm-swarm has no place for anything.*2 × preference"):
        export_constitution(tmp_path / "in", "llm-swarm", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_salmons_principles(tmp_path: Path) -> None:
    result = import_constitution([write(tmp_path / "p.json", SALMON)], tmp_path / "warm")
    constitution = load_constitution(result.files[0])
    first, second, third = constitution.principles
    assert [p.id for p in constitution.principles] == [
        "kind-and-warm",
        "kind-and-warm-2",
        "principle",
    ]
    assert first.preference is not None
    assert first.preference.endswith(" Kind and Warm: The response should be kind.")
    assert (first.weight, second.weight, third.critique) == (3, 1, None)
    assert result.not_held == {"negative_definition": 1}
    assert constitution.name == "warm"
    assert "GPL-3.0" in constitution.license
    assert "--license" in result.notes[0]


def test_what_the_user_says_is_written_down(tmp_path: Path) -> None:
    told = Told("My rules", "a friend", "CC0-1.0")
    result = import_constitution([write(tmp_path / "c.json", SWARM)], tmp_path / "in", None, told)
    constitution = load_constitution(result.files[0])
    exemplars = load_exemplars(result.files[1], RevisionExemplars)
    assert (constitution.name, constitution.source, constitution.license) == told
    assert (exemplars.source, exemplars.license) == told[1:]
    assert result.notes == ()


def test_one_id_stands_for_one_principle(tmp_path: Path) -> None:
    files = SMALL | {"CritiqueRevisionInstructions.json": {"rl-0": RULES["harmful0"]}}
    import_constitution([write_all(tmp_path / "src", files)], tmp_path / "in")
    principles = load_constitution(tmp_path / "in" / "constitution.yaml").principles
    assert [p.id for p in principles] == ["rl-0", "rl-0-2", "rl-1"]
    export_constitution(tmp_path / "in", "anthropic", tmp_path / "out")
    assert {path.name: read(path) for path in (tmp_path / "out").iterdir()} == files


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a", "a", "a"], ["a", "a-2", "a-3"]),
        (["A b", "a-b", "a-b-2"], ["a-b-3", "a-b", "a-b-2"]),
        (["3 rules", "", "--"], ["principle-3-rules", "principle", "principle-2"]),
        (["x" * 70, "x" * 70], ["x" * 64, "x" * 56 + "-2"]),
        (["a_b", "Ünique", "a__b"], ["a_b", "nique", "a-b"]),
    ],
)
def test_ids_are_made_of_words(names: list[str], ids: list[str]) -> None:
    assert unique_ids(names) == ids
    assert [Principle(id=i, critique="x").id for i in ids] == ids


def changed(data: Any, *path: Any) -> Any:
    """A copy of `data` with `path[-1]` at the place that the rest of `path` names."""
    copy = json.loads(json.dumps(data))
    *parents, last, value = path
    inner = copy
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return copy


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed(RULES, "harmful1", "edit_request", 3), "harmful1.edit_request: expected a text, found 3"),
        (changed(RULES, "harmful1", "edit_request", "Mend it."), "harmful1.edit_request: expected 'RevisionRequest:"),
        (changed(RULES, "harmful1", "prompt", []), "harmful1.prompt: expected a list of one text"),
        (changed(RULES, "harmful1", "prompt", ["a", "b"]), "harmful1.prompt: expected a list of one text"),
        (changed(RULES, "harmful1", "prompt", ["CritiqueRequest: Critique:"]), 'harmful1.prompt: expected a text, found " "'),
        (changed(RULES, "harmful1", "weight", 2), "harmful1: unknown field weight; known are: prompt, edit_request"),
        (changed(RULES, "harmful1", {}), "harmful1: prompt is missing"),
        (changed(RULES, "\x1b[2J", []), r"'\x1b[2J': expected an object with prompt, edit_request"),
        ([QUESTIONS[0], "Which?"], "1: expected ' … Options:'"),
        ([QUESTIONS[0], None], "1: expected a text, found null"),
        ([QUESTIONS[0], "\ud800 Options:"], "1: half of a surrogate pair"),
        ([ROUNDS[0], "Hello"], "1: expected it to begin with a speaker"),
        ([ROUNDS[0] + " again"], "0: expected turns of Human and Assistant, then CritiqueRequest,"),
        ([ROUNDS[0].replace("Human: Hi", "Human:")], "0: Human: expected a text"),
        ([ROUNDS[0].replace("Human: Hi\n\n", "")], "found Assistant, CritiqueRequest,"),
        ([f"\n\n{CRITIQUE}"], "0: expected turns of Human and Assistant"),
        (changed(PAIRS, 1, "prompt", "\n\nHuman: Hi"), "1.prompt: expected it to end in an empty turn"),
        (changed(PAIRS, 1, "prompt", "\n\nAssistant:"), "1.prompt: expected turns of Human and Assistant that"),
        (changed(PAIRS, 1, "incorrects", "no"), '1.incorrects: expected a list of one text, found "no"'),
        ([PAIRS[0], "x"], '1: expected an object with prompt, corrects, incorrects, found "x"'),
        ([{"prompt": "x"}], r'0.prompt: expected "\n\n{}\n (A) [[["'),
        ([{"prompt": REASONED[0]["prompt"][:-2] + "C)"}], "0.prompt: expected 'Human: Consider"),
        ([{"prompt": REASONED[0]["prompt"].replace("Consider", "Ponder")}], "0.prompt: expected 'Human: Consider"),
        ([{"prompt": REASONED[0]["prompt"].replace("H: Hi", "A: Hi")}], "0.prompt: expected turns of H and A"),
        (SWARM | {"extra": 1}, "unknown field extra; known are: constitutions, system_chat"),
        ({"constitutions": []}, "system_chat is missing"),
        (SWARM | {"constitutions": {}}, "constitutions: expected a list, found an object"),
        (changed(SWARM, "constitutions", 0, "critic", " "), 'constitutions.0.critic: expected a text, found " "'),
        (changed(SWARM, "system_chat", 1, 0, "role", "system"), 'system_chat.1: expected six messages or more of user and assistant in turns; found "system", "assistant"'),
        (changed(SWARM, "system_chat", 1, CHAT[:4]), "system_chat.1: expected six messages"),
        (changed(SWARM, "system_chat", 1, 5, "name", "x"), "system_chat.1.5: unknown field name"),
        (changed(SALMON, 0, "weight", 0), "0.weight: expected a number above 0 and not above 1e9, found 0"),
        (changed(SALMON, 0, "weight", True), "0.weight: expected a number"),
        (changed(SALMON, 0, "weight", 10**400), "0.weight: expected a number"),
        (changed(SALMON, 1, "negative_definition", 1), "1.negative_definition: expected a text, found 1"),
        (changed(SALMON, 2, "dimension", None), "2.dimension: expected a text, found null"),
        ({}, "looks like none of the files that can be imported"),
        ([], "looks like none of the files"),
        ([1, "x", {}], "looks like none of the files"),
        ("x", "looks like none of the files"),
        ({"constitutions": [], "system_chat": []}, "nothing in it to import"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_and_entry(tmp_path: Path, data: Any, says: str) -> None:
    source = write(tmp_path / "some.json", data)
    with pytest.raises(ConfigError) as caught:
        import_constitution([source], tmp_path / "in")
    assert says in str(caught.value)
    assert "some.json" in str(caught.value)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"{", "some.json:1:2: not JSON"),
        (b'"\xff"', "not UTF-8 text (byte 1)"),
        (b'[{"dimension": "a", "definition": "b", "weight": NaN}]', "NaN is no number"),
        (b'{"harmful0": 1, "harmful0": 2}', "the key harmful0 stands twice"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" + b"1" * 5000 + b"]", "a number too long"),
        (b" " * (MAX_BYTES + 1), "at most"),
    ],
)
def test_what_is_no_json_of_ours_is_refused(tmp_path: Path, raw: bytes, says: str) -> None:
    (tmp_path / "some.json").write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        import_constitution([tmp_path / "some.json"], tmp_path / "in")
    assert says in str(caught.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(QUESTIONS), encoding="utf-8-sig")
    assert round_trip(path, "anthropic", tmp_path) == {"RLMadisonInstructions.json": QUESTIONS}


def test_what_cannot_be_imported_together(tmp_path: Path) -> None:
    questions = write(tmp_path / "a.json", QUESTIONS)
    swarm = write(tmp_path / "b.json", SWARM)
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").touch()
    tries: list[tuple[Any, ...]] = [
        ("import them one by one", [questions, swarm], tmp_path / "in"),
        ("import them one by one", [questions, questions], tmp_path / "in"),
        ("import them one by one", [tmp_path], tmp_path / "in"),
        ("no \\*.json files", [empty], tmp_path / "in"),
        ("cannot be read", [tmp_path / "none.json"], tmp_path / "in"),
        ("is there and is not empty", [questions], tmp_path / "there"),
        ("no such format; there are anthropic", [questions], tmp_path / "in", "xml"),
        ("expected an object with constitutions", [questions], tmp_path / "in", "llm-swarm"),
        ("--name 'é': no constitution's name", [questions], tmp_path / "é"),
        ("--name '-': no", [questions], tmp_path / "in", None, Told("-")),
    ]
    for says, *arguments in tries:
        with pytest.raises(ConfigError, match=says):
            import_constitution(*arguments)
    with pytest.raises(ConfigError, match="exported as anthropic, llm-swarm"):
        export_constitution(SHIPPED / "constitutions" / "harmless.yaml", "salmon", tmp_path / "out")
    with pytest.raises(ConfigError, match="is there and is not empty"):
        export_constitution(
            SHIPPED / "constitutions" / "harmless.yaml", "anthropic", tmp_path / "there"
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.json",
        "b.json",
        "empty",
        "there",
    ]


def test_a_form_can_be_forced(tmp_path: Path) -> None:
    """By its name a file of five is known where its content tells nothing."""
    source = write(tmp_path / "RLMadisonInstructions.json", ["Which is kinder?"])
    with pytest.raises(ConfigError, match=r"RLMadisonInstructions.json: 0: expected ' … Options:'"):
        import_constitution([source], tmp_path / "in")
    with pytest.raises(ConfigError, match="0: dimension is missing"):
        import_constitution([write(tmp_path / "x.json", [{}])], tmp_path / "in", "salmon")


def test_what_the_command_line_takes_for_a_constitution(tmp_path: Path) -> None:
    import_constitution([write(tmp_path / "a.json", PAIRS)], tmp_path / "in")
    assert is_constitution(tmp_path / "in")
    assert is_constitution(tmp_path / "mine.yaml")
    assert not is_constitution(tmp_path)
    assert not is_constitution(tmp_path / "none")


def test_more_than_a_file_may_hold_is_refused(tmp_path: Path) -> None:
    """One letter a line takes more room in YAML than in JSON."""
    rows = [f"{'a' * 3}\n" + "b\n" * (MAX_BYTES // 4) + "Options:"]
    with pytest.raises(ConfigError, match=r"constitution.yaml: more than the \d+ bytes"):
        import_constitution([write(tmp_path / "a.json", rows)], tmp_path / "in")


LETTERS = st.sampled_from(
    "ab1e:-#'\"{}[]|>&*!%@`~? \t\n\r\x07\x1b\x7f\x85\xa0\u2028\u2029\ufeff\ufffe中😀"
)
TEXTS = st.text(LETTERS, max_size=12)


@settings(deadline=None, database=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "no"]), st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2))))  # fmt: skip
def test_every_text_survives_our_yaml(data: dict[str, Any]) -> None:
    assert parse_yaml(yaml_text(data), "x").data == data


PIECES = st.sampled_from(
    ["Human:", "\n\nHuman:", "\n\nA:", "Critique:", "Assistant: ", "\n", "\n\n", " ", "x", "]]]", "\n (B) [[[", "]]]\n (B) [[[", "{}", " Options:", "So the answer is: ("]
)  # fmt: skip
PUBLISHED: list[tuple[Sheet, Any]] = [
    (kind.sheets[0], value)
    for kind in ANTHROPIC.kinds
    for value in (SMALL[kind.file].values() if kind.sheets[0].keyed else SMALL[kind.file])
]


@settings(max_examples=500, deadline=None, database=None)
@given(st.sampled_from(PUBLISHED), st.data())
def test_whatever_can_be_imported_can_be_exported(
    published: tuple[Sheet, Any], data: st.DataObject
) -> None:
    """Marks in the wrong places are refused, or are text; then they come back."""

    def disturbed(value: Any) -> Any:
        if isinstance(value, str):
            at = data.draw(st.integers(0, len(value)))
            return value[:at] + "".join(data.draw(st.lists(PIECES, max_size=3))) + value[at:]
        if isinstance(value, list):
            return [disturbed(inner) for inner in value]
        return {key: disturbed(inner) for key, inner in value.items()}

    sheet, original = published[0]._replace(keyed=False), disturbed(published[1])
    try:
        entry = sheet.read(original, "")
    except ConfigError:
        return
    assert can_say(sheet, entry)
    assert sheet.write is not None
    assert sheet.read(sheet.write(entry), "") == entry
    assert restored(sheet, [entry], [Sourced(entry, original)]) == [original]
