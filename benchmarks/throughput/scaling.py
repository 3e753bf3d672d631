"""Tables without a bar: what an episode costs by the size of the model and by its length, beside the operations it needs."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.throughput.contender import Contender
from benchmarks.throughput.setting import Setting
from benchmarks.throughput.table import Table

if TYPE_CHECKING:
    from benchmarks.throughput.measure import Measured

FEW: dict[str, Any] = {"episodes": 16}


@dataclass(frozen=True)
class ScalingTable(Table):
    """One whole iteration of TextPPO for each value of one quantity.

    Attributes:
        quantity: what the first column is.
        is_linear: whether the cost is to be linear in it: the table then shows the fit.
    """

    quantity: str = ""
    is_linear: bool = False


def table(title: str, quantity: str, changes: dict[str, dict[str, Any]], is_linear: bool) -> ScalingTable:
    """A table of one contender for each entry of ``changes``: what the first column says, and the setting's changes."""
    contenders = {
        f"{quantity.split()[0]}-{value}": Contender("scaling:iteration", value, changes=FEW | change)
        for value, change in changes.items()
    }
    return ScalingTable(title, "ms per episode", contenders, [], 2, quantity, is_linear)


SIZES = table(
    "Size of the model, 32 + 48 tokens",
    "parameters",
    {
        "1M": {"hidden": 128},
        "4M": {},
        "25M": {"layers": 8, "hidden": 512, "heads": 8},
        "82M": {
            "layers": 6, "hidden": 768, "heads": 12, "vocabulary": 50_257, "episodes": 4, "minibatch": 4,
        },
    },
    is_linear=False,
)  # fmt: skip
LENGTHS_OF_PROMPT = table(
    "Length of the prompt, 4 M parameters, 48 response tokens",
    "prompt tokens",
    {str(n): {"prompt": n} for n in (16, 64, 128, 256, 512)},
    is_linear=True,
)
LENGTHS_OF_RESPONSE = table(
    "Length of the response, 4 M parameters, 32 prompt tokens",
    "response tokens",
    {str(n): {"response": n} for n in (16, 32, 64, 128, 256)},
    is_linear=True,
)


def operations(setting: Setting, parameters: int) -> float:
    """Floating-point operations that an episode needs, 2 N a token forward and 6 N trained, all its tokens counted.

    It is generated once, evaluated twice, by policy and reference, and trained on in each epoch.
    """
    return (setting.prompt + setting.response) * parameters * (2.0 + 2 * 2 + 6 * setting.epochs)


def scaling_rows(measured: "Measured", table: ScalingTable) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows: one for each value of the quantity."""
    names = [name for name in table.contenders if any(name in samples for samples in measured.rounds)]
    columns = [
        table.quantity,
        table.shown,
        "GFLOP per episode",
        "of the peak",
        "peak MB",
        "rounds",
        "computed in",
    ]
    rows = []
    for name in names:
        facts, seconds = measured.facts(name), measured.seconds(name)
        needed = operations(replace(Setting(), **table.contenders[name].changes), facts["parameters"])
        rows.append(
            [
                table.contenders[name].label,
                f"{seconds * 1e3:,.1f}",
                f"{needed / 1e9:,.1f}",
                f"{needed / seconds / facts['peak']:.0%} of {facts['peak'] / 1e9:,.0f} GFLOP/s",
                f"{measured.peak_mb(name):,.0f}",
                str(len(measured.samples(name))),
                facts["dtype in update"],
            ]
        )
    if table.is_linear and len(names) > 2:
        x = np.array([float(table.contenders[name].label) for name in names])
        y = np.array([measured.seconds(name) * 1e3 for name in names])
        slope, start = np.polyfit(x, y, 1)
        columns.append(f"fit: {start:.1f} + {slope:.3f} x (measured)")
        for row, fitted, ms in zip(rows, start + slope * x, y):
            row.append(f"{fitted:,.1f} ({ms / fitted:.0%})")
    return table.title, columns, rows
