"""Where constitutions, prompts and recipes are found: as given, in the project, in the package."""

import difflib
from pathlib import Path

from cai.errors import ConfigError

PACKAGE = Path(__file__).parent
CONSTITUTIONS = "constitutions"
PROMPTS = "prompts"
RECIPES = "recipes"


def packaged(folder: str) -> Path:
    """The folder as it travels in the wheel, or in a source checkout."""
    if folder == RECIPES:
        return PACKAGE / RECIPES
    inside = PACKAGE / "data" / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def find_resource(name: str, folder: str, suffix: str) -> Path:
    """The file or folder that `name` means: a path, or the name of one in `./folder` or shipped."""
    candidates = [Path(name), Path(folder) / name, packaged(folder) / name]
    candidates += [path.with_name(path.name + suffix) for path in candidates if suffix]
    for path in candidates:
        if path.exists():
            return path
    known = sorted({path.stem for path in packaged(folder).glob(f"*{suffix}")})
    near = difflib.get_close_matches(Path(name).stem, known, 1)
    hint = f"did you mean {near[0]}{suffix}?" if near else f"shipped are: {', '.join(known)}"
    raise ConfigError(
        f"{name}: no such {folder.rstrip('s')}, neither as a path nor in ./{folder}; {hint}"
    )
