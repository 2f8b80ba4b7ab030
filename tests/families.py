"""Small tokenizers of many families: real special tokens, real chat templates, own small vocabulary.

Kind of model, normaliser and pre-tokeniser are those of the family; the special tokens are its own,
with their flags, the templates those that TRL ships or, where it ships none, those of the model's
card. What a family has a thousand of (reserved tokens) is here three times.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre
from transformers import PreTrainedTokenizerFast

WORDS = """Human Assistant System user assistant system critique response revision verdict answer
the a of to and in is it that was for on are with as at be this have from or had by not but what all
were when we there can an your which their said if do will each about how up out them then she many
some so these would other into has more her two like him see time could no make than first been its
who now people my made over did down only way find use may water long little very after words called
just where most know think step write only new kind good harm help please sorry cannot will explain
"""
TEXTS = [
    WORDS,
    *(f"{a} {b}. {b}, {a}?" for a, b in zip(WORDS.split(), WORDS.split()[1:], strict=False)),
]
QWEN = """<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|>
<|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|>
<|video_pad|>"""
QWEN_ADDED = """<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|>
<|repo_name|> <|file_sep|> <tool_response> </tool_response> <think> </think>"""
LLAMA3 = """<|begin_of_text|> <|end_of_text|> <|finetune_right_pad_id|> <|start_header_id|>
<|end_header_id|> <|eom_id|> <|eot_id|> <|python_tag|> <|reserved_special_token_0|>
<|reserved_special_token_1|> <|reserved_special_token_2|>"""
MISTRAL = """<unk> <s> </s> [INST] [/INST] [TOOL_CALLS] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS]
[TOOL_RESULTS] [/TOOL_RESULTS] [control_8] [control_9]"""
GEMMA = """<pad> <eos> <bos> <unk> <mask> [multimodal] <unused0> <unused1> <start_of_turn>
<end_of_turn> <start_of_image> <end_of_image>"""
GEMMA_ADDED = "<table> <tr> <td> <h1> <blockquote> </h1> <ul> <strong> [toxicity=0]"
PHI3 = """<|endoftext|> <|assistant|> <|placeholder1|> <|placeholder2|> <|end|> <|system|>
<|placeholder3|> <|user|>"""
DEEPSEEK = """<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜▁pad▁｜>"""
DEEPSEEK_ADDED = """<｜fim▁hole｜> <｜fim▁begin｜> <｜fim▁end｜> <｜User｜> <｜Assistant｜> <|EOT|>
<｜tool▁calls▁begin｜> <｜tool▁calls▁end｜> <｜tool▁call▁begin｜> <｜tool▁call▁end｜>
<｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜>
<｜tool▁sep｜> <think> </think>"""
COMMAND = """<PAD> <UNK> <CLS> <SEP> <MASK_TOKEN> <BOS_TOKEN> <EOS_TOKEN> <EOP_TOKEN>
<|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|YES_TOKEN|> <|NO_TOKEN|> <|GOOD_TOKEN|> <|BAD_TOKEN|>
<|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|> <|USER_0_TOKEN|> <|USER_9_TOKEN|> <|EXTRA_0_TOKEN|>"""
HARMONY = """<|startoftext|> <|endoftext|> <|reserved_200000|> <|return|> <|constrain|> <|channel|>
<|start|> <|end|> <|message|> <|call|> <|endofprompt|>"""
LLAMA2 = "<unk> <s> </s>"

LLAMA2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}{{ bos_token }}"
    "{% for message in turns %}{% if message['role'] == 'user' %}{% if loop.last and system is defined %}{{ '[INST] ' + system + '\\n\\n' + message['content'] + '[/INST]' }}{% else %}{{ '[INST] ' + message['content'] + '[/INST]' }}{% endif %}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
ALPACA_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\\n\\n' }}{% elif m.role == 'user' %}{{ '### Instruction:\\n' + m.content + '\\n\\n' }}"
    "{% else %}{{ '### Response:\\n' + m.content + eos_token + '\\n\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)
VICUNA_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + ' ' }}{% elif m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
ZEPHYR_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>\\n' + m.content + eos_token }}{% elif m.role == 'system' %}{{ '<|system|>\\n' + m.content + eos_token }}"
    "{% else %}{{ '<|assistant|>\\n' + m.content + eos_token }}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}\n{% endfor %}"
)


class Family(NamedTuple):
    """What a tokenizer is made of."""

    kind: str
    """bytes (byte-level BPE), pieces (BPE with metaspace and byte fallback) or unigram (NFKC)."""
    special: str
    template: str | None
    """A template, or the name of one that TRL ships."""
    ends: tuple[str, str]
    """Begin and end token."""
    added: str = ""
    """Added tokens that are not special."""
    flags: dict[str, Any] = {}
    """Of the tokens, `special` and `added` alike."""
    literals: tuple[str, ...] = ()
    """Some of what the template writes in ordinary ids."""
    system: bool = True
    """Whether the template has a system turn."""
    scheme: str = "always"
    """How metaspace begins a text: in Llama 2 as in Mistral v3, or only at its beginning."""


FAMILIES = {
    "qwen3": Family("bytes", QWEN, "qwen3", ("<|im_start|>", "<|im_end|>"), QWEN_ADDED, literals=("<tools>", "</tools>")),
    "llama3": Family("bytes", LLAMA3, "llama3", ("<|begin_of_text|>", "<|eot_id|>")),
    "llama2": Family("pieces", LLAMA2, LLAMA2_TEMPLATE, ("<s>", "</s>"), flags={"normalized": False}, literals=("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")),
    "mistral": Family("pieces", MISTRAL, MISTRAL_TEMPLATE, ("<s>", "</s>"), scheme="first"),
    "gemma": Family("pieces", GEMMA, "gemma", ("<bos>", "<eos>"), GEMMA_ADDED, system=False, scheme="never"),
    "phi3": Family("pieces", f"<unk> <s> </s> {PHI3}", "phi3", ("<s>", "<|endoftext|>"), flags={"rstrip": True}),
    "deepseek": Family("bytes", DEEPSEEK, "deepseekv3", ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), DEEPSEEK_ADDED, flags={"normalized": True}),
    "command": Family("bytes", COMMAND, "cohere", ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>")),
    "harmony": Family("bytes", HARMONY, "gptoss", ("<|startoftext|>", "<|return|>")),
    "zephyr": Family("pieces", LLAMA2, ZEPHYR_TEMPLATE, ("<s>", "</s>"), literals=("<|user|>", "<|system|>", "<|assistant|>")),
    "vicuna": Family("pieces", LLAMA2, VICUNA_TEMPLATE, ("<s>", "</s>"), literals=("USER:", "ASSISTANT:"), scheme="first"),
    "alpaca": Family("unigram", "<pad> </s> <unk> <mask>", ALPACA_TEMPLATE, ("</s>", "</s>"), flags={"normalized": True}, literals=("### Instruction:", "### Response:")),
    "base": Family("bytes", "<|endoftext|> <|padding|>", None, ("<|endoftext|>", "<|endoftext|>"), literals=("\n\nHuman:", "\n\nAssistant:")),
}  # fmt: skip
"""alpaca is the one whose own vocabulary holds its special tokens and whose normaliser is NFKC."""


def build(name: str) -> Any:
    """The family's tokenizer; a few hundredths of a second."""
    family = FAMILIES[name]
    raw = MODELS[family.kind](family)
    special, added = family.special.split(), family.added.split()
    raw.add_special_tokens([AddedToken(token, special=True, **family.flags) for token in special])
    raw.add_tokens([AddedToken(token, special=False, **family.flags) for token in added])
    bos, eos = family.ends
    named = {"unk_token": "<unk>"} if "<unk>" in special else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=bos, eos_token=eos, **named)
    tokenizer.chat_template = template_of(family)
    return tokenizer


def template_of(family: Family) -> str | None:
    if family.template is None or "{" in family.template:
        return family.template
    spec = find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "chat_templates" / f"{family.template}.jinja"
    return path.read_text(encoding="utf-8")


def byte_level(family: Family) -> Tokenizer:
    raw = Tokenizer(models.BPE())
    split = Regex(
        r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    raw.pre_tokenizer = pre.Sequence(
        [pre.Split(split, "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(TEXTS, trainer)
    return raw


def metaspace(family: Family) -> Tokenizer:
    """Byte fallback: what has no piece is spelled in bytes."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre.Metaspace(prepend_scheme=family.scheme)
    special = [*family.special.split(), *fallback]
    learner.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    )
    model = learned(learner)
    merges = [tuple(pair) for pair in model["merges"]]
    raw = Tokenizer(
        models.BPE(model["vocab"], merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    if family.scheme == "always":  # As Llama 2 is converted: by a normaliser.
        raw.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        raw.pre_tokenizer = pre.Metaspace(prepend_scheme=family.scheme, split=False)
    return raw


def unigram(family: Family) -> Tokenizer:
    """The special tokens are entries of its vocabulary that a text can spell."""
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=family.special.split(),
        unk_token="<unk>",
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    learner.train_from_iterator(TEXTS, trainer)
    model = learned(learner)
    raw = Tokenizer(models.Unigram([tuple(entry) for entry in model["vocab"]], model["unk_id"]))
    raw.normalizer = normalizers.NFKC()
    raw.pre_tokenizer = pre.Metaspace(prepend_scheme="always")
    raw.decoder = decoders.Metaspace(prepend_scheme="always")
    return raw


def learned(learner: Tokenizer) -> dict[str, Any]:
    """The model alone: a trainer makes added tokens of its special ones."""
    return json.loads(learner.to_str())["model"]


MODELS = {"bytes": byte_level, "pieces": metaspace, "unigram": unigram}
