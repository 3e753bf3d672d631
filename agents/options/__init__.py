"""What `rlhf` can be told, a file for each group of commands.

A file's `COMMANDS` maps a command to what makes its parser and to "module:function", which runs it. Parsing imports no
torch; the function's module is imported when it runs.
"""

from collections.abc import Callable

from jsonargparse import ArgumentParser

from agents.options import bench, doctor, feedback, feedback_serve, loop, reward, training

Commands = dict[str, tuple[Callable[[], ArgumentParser], str]]

# The commands of the group "" stand for themselves: `rlhf ppo`; those of another follow its name: `rlhf feedback serve`.
GROUPS: dict[str, tuple[str, Commands]] = {
    "": (
        "Train causal language models by reinforcement learning from human feedback.",
        training.COMMANDS | loop.COMMANDS | doctor.COMMANDS,
    ),
    "feedback": (
        "What people prefer: collect it, look at it, take it elsewhere.",
        feedback_serve.COMMANDS | feedback.COMMANDS,
    ),
    "reward": ("Reward models that learn what people prefer.", reward.COMMANDS),
    "bench": ("Which algorithm, on which task, with what certainty.", bench.COMMANDS),
}
