"""YAML files made to deceive or overwhelm a reader: name → (bytes, what the complaint says).

An empty complaint: the file is read, and means what stands there.
"""

MIB = 1 << 20


def fill(piece: str, before: str = "", after: str = "", size: int = MIB) -> bytes:
    """`piece` repeated up to `size` bytes in all."""
    n = (size - len(before.encode()) - len(after.encode())) // len(piece.encode())
    return f"{before}{piece * n}{after}".encode()


def lines(n: int, line: str) -> bytes:
    """`n` lines, each with its number in place of `#`."""
    return "".join(f"{line.replace('#', str(i))}\n" for i in range(n)).encode()


LAUGHS = b"a: &a [x,x]\n" + b"".join(
    f"{c}: &{c} [*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p}]\n".encode()
    for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)
KEYS = "\n".join(f"key{i}: v" for i in range(20_000))

BOMBS: dict[str, tuple[bytes, str]] = {
    # structure that grows when it is read
    "billion laughs": (LAUGHS, "aliases are not allowed"),
    "alias before its anchor": (b"a: *b\nb: &b 1", "aliases are not allowed"),
    "anchor on a key": (b"&a x: 1", "aliases are not allowed"),
    "anchor on nothing": (b"a: &x\nb: 1", "aliases are not allowed"),
    "a list that holds itself": (b"a: &x [*x]", "aliases are not allowed"),
    "a mapping that is its own key": (b"&x {*x : 1}", "aliases are not allowed"),
    "merge key with an alias": (b"a: &x {b: 1}\nc: {<<: *x}", "aliases are not allowed"),
    "merge keys twice": (b"<<: {a: 1}\n<<: {a: 2}", "stands here twice"),
    "100,000 anchors": (fill("- &a x\n"), "aliases are not allowed"),
    "100,000 aliases": (fill("*a,", "[", "x]"), "aliases are not allowed"),
    # code
    "python object": (b"!!python/object/apply:os.system ['touch canary']", "tag"),
    "python name": (b"a: !!python/name:os.system", "tag"),
    "python module": (b"a: !!python/module:antigravity", "tag"),
    "python new": (b"a: !!python/object/new:type [x, [object], {}]", "tag"),
    "python tuple": (b"a: !!python/tuple [1]", "tag"),
    "binary": (b"a: !!binary aGVsbG8=", "tag"),
    "set": (b"a: !!set {x, y}", "tag"),
    "ordered map": (b"a: !!omap [x: 1]", "tag"),
    "number as text by a tag": (b"a: !!str 12", "tag"),
    "the bare tag": (b"a: ! 12", "tag"),
    "a tag of its own": (b"a: !include /etc/passwd", "tag"),
    "verbatim tag": (b"a: !<tag:yaml.org,2002:python/name:os.system> x", "tag"),
    "tag directive": (
        b"%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!name:os.system x",
        "directives",
    ),
    "50,000 tag directives": (lines(50_000, "%TAG !a#! b") + b"---\na: 1", "directives"),
    "YAML 1.1 asked for": (b"%YAML 1.1\n---\na: no", "directives"),
    "YAML 9.9 asked for": (b"%YAML 9.9\n---\na: 1", "directives"),
    # depth
    "1 MiB of [": (fill("["), "nested deeper than 50"),
    "1 MiB of {": (fill("{"), "a key must be a word"),
    "1 MiB of {a: ": (fill("{a: "), "nested deeper than 50"),
    "1 MiB of - ": (fill("- "), "nested deeper than 50"),
    "1 MiB of ? ": (fill("? "), "a key must be a word"),
    "1 MiB of []": (fill("[]"), "not YAML"),
    "[ and ]": (b"[" * 5000 + b"]" * 5000, "nested deeper than 50"),
    "51 levels of block": (
        "".join(f"{' ' * i}k:\n" for i in range(51)).encode() + b" " * 51 + b"k: v",
        "nested deeper than 50",
    ),
    "49 levels of block": (
        "".join(f"{' ' * i}k:\n" for i in range(49)).encode() + b" " * 49 + b"k: v",
        "",
    ),
    # number
    "400,000 items": (fill("a,", "[", "]"), "more than 50000"),
    "100,000 empty items": (fill("-\n"), "more than 50000"),
    "100,000 keys": (lines(100_000, "k#: v")[: MIB - 8], "more than 50000"),
    "20,000 unknown keys": (KEYS.encode(), ""),
    "20,000 unknown keys in a trainer": (
        b"sft:\n trainer:\n" + b"".join(b"  " + key + b"\n" for key in KEYS.encode().split(b"\n")),
        "",
    ),
    "10,000 principles of the wrong kind": (b"principles:\n" + lines(10_000, "- {id: 7}"), ""),
    "30,000 documents": (fill("---\na\n"), "second document"),
    "a key twice, far apart": (b"a: 1\n" + KEYS.encode() + b"\na: 2", "stands here twice"),
    "a key twice, quoted": (b"a: 1\n'a': 2", "stands here twice"),
    "a key twice, as a number": (b"1: 1\n'1': 2", "stands here twice"),
    "a key twice, deep": (b"a: [{b: {c: 1, c: 2}}]", "stands here twice"),
    # length
    "1 MiB of one scalar": (fill("x", "a: "), ""),
    "1 MiB of one key": (fill("x", "", ": 1", 1000), ""),
    "a key of half a MiB": (fill("x", "? ", "\n: 1", MIB // 2), ""),
    "1 MiB of digits": (fill("9", "a: "), ""),
    "1 MiB of fraction": (fill("9", "a: 0."), ""),
    "1 MiB of exponent": (fill("9", "a: 1e"), ""),
    "1 MiB of escapes": (fill("\\x41", 'a: "', '"'), ""),
    "1 MiB of quotes": (fill("''", "a: '", "'", MIB - 1), ""),
    "1 MiB of an open quote": (fill("x", 'a: "'), "not YAML"),
    "1 MiB of spaces": (fill(" "), ""),
    "1 MiB of empty lines": (fill("\n"), ""),
    "1 MiB of comments": (fill("# x\n"), ""),
    "1 MiB of words": (fill("x ", "a: "), ""),
    "1 MiB of folded lines": (fill("  x\n\n", "a: >\n"), ""),
    "1 MiB of literal lines": (fill("  x\n", "a: |\n"), ""),
    "1 MiB of colons": (fill("a:"), "not YAML"),
    "1 MiB of a: ": (fill("a: "), "not YAML"),
    "1 MiB of commas": (fill(",", "[", "]"), "not YAML"),
    "1 MiB of %": (fill("%"), "not YAML"),
    "1 MiB of CR": (fill("\r"), ""),
    "a comment of 1 MiB": (fill("x", "# "), ""),
    "1 MiB and a byte": (b"#" * (MIB + 1), "at most"),
    "2 MiB": (b"#" * (2 * MIB), "at most"),
    # bytes
    "UTF-16": ("\ufeffa: 1".encode("utf-16-le"), "not UTF-8"),
    "UTF-32": ("a: 1".encode("utf-32"), "not UTF-8"),
    "Latin 1": (b"a: \xff", "not UTF-8"),
    "overlong UTF-8": (b"a: \xc0\xaf", "not UTF-8"),
    "a surrogate as UTF-8": (b"a: \xed\xa0\x80", "not UTF-8"),
    "beyond Unicode": (b"a: \xf4\x90\x80\x80", "not UTF-8"),
    "half a character": (b"a: \xe2\x82", "not UTF-8"),
    "BOM": (b"\xef\xbb\xbfa: 1", ""),
    "two BOMs": (b"\xef\xbb\xbf\xef\xbb\xbfa: 1", ""),
    "NUL": (b"a: \x00", "not YAML"),
    "bell": (b"a: \x07", "not YAML"),
    "terminal escape": (b"a: \x1b[2J", "not YAML"),
    "DEL": (b"\x7f: 1", "not YAML"),
    "escaped NUL": (b'a: "\\0"', "NUL"),
    "escaped NUL in a key": (b'"a\\0": 1', "NUL"),
    "escaped terminal escape": (b'"\\e[2J": 1', ""),
    "escaped surrogate": (b'a: "\\ud800"', "character"),
    "escaped pair of surrogates": (b'a: "\\ud83d\\ude00"', "character"),
    "beyond Unicode, escaped": (b'a: "\\U00110000"', "not YAML"),
    "far beyond Unicode, escaped": (b'a: "\\UFFFFFFFF"', "not YAML"),
    "unknown escape": (b'a: "\\q"', "not YAML"),
    "right to left": ("a: \u202eb".encode(), ""),
    # shape
    "tab": (b"\ta: b", "not YAML"),
    "no end": (b"a: [1, 2", "not YAML"),
    "list as a key": (b"? [a, b]\n: 1", "a key must be a word"),
    "mapping as a key": (b"{{a: 1}: 2}", "a key must be a word"),
    "key without value": (b"? a", ""),
    "only a number": (b"7", ""),
    "only a list": (b"- a\n- b", ""),
    "nothing": (b"", ""),
    "only an end": (b"...", "not YAML"),
    "only a start": (b"---", ""),
    "reserved @": (b"a: @b", "not YAML"),
    "reserved `": (b"a: `b`", "not YAML"),
    # meaning
    "Norway": (b"a: no", ""),
    "octal": (b"a: 010", ""),
    "hexadecimal": (b"a: 0x1F", ""),
    "sexagesimal": (b"a: 190:20:30", ""),
    "underscores": (b"a: 1_000", ""),
    "infinite": (b"a: .inf", ""),
    "not a number": (b"a: .nan", ""),
    "too large a number": (b"a: 1e999", ""),
    "date": (b"a: 2001-01-23", ""),
    "complaint about a principle that is none": (b"version: [principles.99]", ""),
    "principles as a mapping": (b"principles: {0: {id: a}}", ""),
    "principles of nothing": (b"principles: [null, 1, [], {}]", ""),
}
