"""A Python of its own, for a contender whose versions do not fit beside ours."""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class OtherPython:
    """Where another Python is looked for.

    Attributes:
        variable: the environment variable that may name it.
        folder: the virtual environment beside the project where it is else.
        made_by: the command that makes that folder.
    """

    variable: str
    folder: str
    made_by: str

    def find(self) -> str | None:
        """Its path, or None where it is absent."""
        path = Path(os.environ.get(self.variable) or ROOT / self.folder / "bin" / "python")
        return str(path) if path.exists() else None

    @property
    def notice(self) -> str:
        """What to do where it is absent."""
        return f"no {self.folder}: {self.made_by}, or {self.variable}=/path/to/python"


TRL_1_12 = OtherPython("TRL_PPO_PYTHON", ".venv-trl112", "make trl112")
