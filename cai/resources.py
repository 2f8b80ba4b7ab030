"""Where constitutions, prompts and recipes are found: as given, in the project, in the package."""

import difflib
import os
from pathlib import Path

from cai.errors import ConfigError
from cai.strict_yaml import short

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
    candidates += [Path(f"{path}{suffix}") for path in candidates if suffix]
    for path in candidates:
        # Path.exists raises for a name that is too long
        if os.path.exists(path):
            return path
    known = sorted({path.stem for path in packaged(folder).glob(f"*{suffix}")})
    near = difflib.get_close_matches(short(Path(name).stem), known, 1)
    hint = f"did you mean {near[0]}{suffix}?" if near else f"shipped are: {', '.join(known)}"
    raise ConfigError(
        f"{short(name)}: no such {folder.rstrip('s')}, neither as a path nor in ./{folder}; {hint}"
    )
