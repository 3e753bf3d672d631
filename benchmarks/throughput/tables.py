"""What is compared with what: the contenders of each table, and the bars that their ratios should reach."""

from dataclasses import dataclass, field

from benchmarks.throughput.contender import Contender

FP32, BF16 = {"dtype": "float32"}, {"dtype": "bfloat16"}
EVEN, RAGGED = {"ends_early": False}, {"ends_early": True}


@dataclass(frozen=True)
class Bar:
    """``ours`` is to be ``limit`` times as fast as ``theirs``; for "memory", to peak at ``limit`` times theirs at most."""

    ours: str
    theirs: str
    limit: float
    quantity: str = "speed"

    @property
    def needs_bf16(self) -> bool:
        return "bf16" in self.ours


@dataclass(frozen=True)
class Table:
    """Contenders that take turns, round after round.

    Attributes:
        unit: what one unit of work is; times are shown per unit.
        contenders: by the short names that ``bars`` and ``--only`` use.
    """

    title: str
    unit: str
    contenders: dict[str, Contender]
    bars: list[Bar] = field(default_factory=list)


TABLES = {
    "iteration": Table(
        "One whole PPO iteration, even lengths",
        "episode",
        {
            "ours-fp32": Contender("ours:iteration", "TextPPO, fp32", FP32),
            "ours-bf16": Contender("ours:iteration", "TextPPO, bf16 autocast", BF16),
            "rloo-fp32": Contender(
                "trl_rloo:iteration", "TRL RLOOTrainer (no critic), fp32", FP32, needs="trl"
            ),
            "rloo-bf16": Contender(
                "trl_rloo:iteration", "TRL RLOOTrainer (no critic), bf16", BF16, needs="trl"
            ),
            "sb3-64": Contender(
                "sb3:iteration",
                "SB3 PPO, its batch size of 64 tokens, fp32",
                {"n_episodes": 8, "batch_size": 64},
            ),
            "sb3-768": Contender(
                "sb3:iteration",
                "SB3 PPO, batches of 16 episodes' tokens, fp32",
                {"n_episodes": 16, "batch_size": 768},
            ),
        },
        [
            Bar("ours-bf16", "rloo-fp32", 2.5),
            Bar("ours-bf16", "rloo-bf16", 2.0),
            Bar("ours-bf16", "sb3-64", 60.0),
            Bar("ours-fp32", "rloo-fp32", 1.4),
            Bar("ours-fp32", "sb3-64", 60.0),
            Bar("ours-fp32", "sb3-768", 60.0),
            Bar("ours-fp32", "rloo-fp32", 0.75, "memory"),
        ],
    ),
    "rollout": Table(
        "Rollout alone, 32 slots",
        "token",
        {
            "slots-fp32": Contender("ours:rollout", "TextPPO's rollout, even, fp32", FP32 | EVEN),
            "slots-bf16": Contender("ours:rollout", "TextPPO's rollout, even, bf16", BF16 | EVEN),
            "generate-fp32": Contender("hugging_face:generate", "generate, even, fp32", FP32 | EVEN),
            "generate-bf16": Contender("hugging_face:generate", "generate, even, bf16", BF16 | EVEN),
            "slots-ragged-fp32": Contender("ours:rollout", "TextPPO's rollout, ragged, fp32", FP32 | RAGGED),
            "slots-ragged-bf16": Contender("ours:rollout", "TextPPO's rollout, ragged, bf16", BF16 | RAGGED),
            "generate-ragged-fp32": Contender(
                "hugging_face:generate", "generate, ragged, fp32", FP32 | RAGGED
            ),
            "generate-ragged-bf16": Contender(
                "hugging_face:generate", "generate, ragged, bf16", BF16 | RAGGED
            ),
        },
        [
            Bar("slots-bf16", "generate-fp32", 1.5),
            Bar("slots-fp32", "generate-fp32", 1.5),
            Bar("slots-ragged-bf16", "generate-ragged-bf16", 2.5),
            Bar("slots-ragged-fp32", "generate-ragged-fp32", 2.5),
        ],
    ),
    "env": Table(
        "Environment alone, 256 sub-environments, random tokens",
        "token",
        {
            "vector": Contender("ours:env", "TextVecEnv"),
            "dummy": Contender("sb3:env", "SB3 DummyVecEnv of single environments"),
        },
        [Bar("vector", "dummy", 40.0)],
    ),
}
