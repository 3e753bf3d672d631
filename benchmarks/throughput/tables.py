"""What is compared with what."""

from benchmarks.throughput.contender import Contender
from benchmarks.throughput.other_python import TRL_1_12
from benchmarks.throughput.scaling import LENGTHS_OF_PROMPT, LENGTHS_OF_RESPONSE, SIZES
from benchmarks.throughput.table import Bar, Table

FP32, BF16 = {"dtype": "float32"}, {"dtype": "bfloat16"}
EVEN, RAGGED = {"ends_early": False}, {"ends_early": True}
SEPARATE = {"value_model": "separate"}
SLOTS_128 = {"slots": 128, "episodes": 128}

ITERATION = Table(
    "One whole PPO iteration, even lengths",
    "ms per episode",
    {
        "ours-fp32": Contender("ours:iteration", "TextPPO, fp32", FP32),
        "ours-bf16": Contender("ours:iteration", "TextPPO, bf16 autocast", BF16),
        "ours-separate-fp32": Contender("ours:iteration", "TextPPO, separate value model, fp32", FP32 | SEPARATE),
        "ours-separate-bf16": Contender("ours:iteration", "TextPPO, separate value model, bf16", BF16 | SEPARATE),
        "rloo-fp32": Contender(
            "trl_rloo:iteration", "TRL RLOOTrainer (no critic), fp32", FP32, needs="trl"
        ),
        "rloo-bf16": Contender(
            "trl_rloo:iteration", "TRL RLOOTrainer (no critic), bf16", BF16, needs="trl"
        ),
        "trl-ppo-fp32": Contender(
            "trl_ppo:iteration", "TRL 1.12 PPOTrainer, fp32", FP32, python=TRL_1_12
        ),
        "trl-ppo-bf16": Contender(
            "trl_ppo:iteration", "TRL 1.12 PPOTrainer, bf16", BF16, python=TRL_1_12
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
        "rl4lms": Contender(
            "rl4lms:iteration",
            "RL4LMs's way, its batch size of 64 tokens, fp32",
            {"n_episodes": 8, "batch_size": 64},
        ),
    },
    [
        Bar("ours-bf16", "rloo-fp32", 4.0, "loop, precision"),
        Bar("ours-bf16", "rloo-bf16", 3.0, "loop"),
        Bar("ours-fp32", "rloo-fp32", None, "loop"),
        Bar("ours-separate-fp32", "trl-ppo-fp32", 1.5, "loop"),
        Bar("ours-separate-bf16", "trl-ppo-bf16", 2.6, "loop, precision in all phases"),
        Bar("ours-fp32", "trl-ppo-fp32", None, "loop, shared value"),
        Bar("ours-bf16", "trl-ppo-fp32", None, "loop, precision, shared value"),
        Bar("ours-fp32", "sb3-64", 70.0, "loop"),
        Bar("ours-fp32", "sb3-768", 70.0, "loop"),
        Bar("ours-bf16", "sb3-64", 60.0, "loop, precision"),
        Bar("ours-bf16", "rl4lms", 150.0, "loop, precision, shared value"),
        Bar("ours-fp32", "rl4lms", None, "loop, shared value"),
        Bar("ours-fp32", "ours-separate-fp32", None, "shared value"),
        Bar("ours-bf16", "ours-fp32", None, "precision"),
        Bar("ours-fp32", "rloo-fp32", 0.65, "loop", "memory"),
        Bar("ours-bf16", "rloo-fp32", 0.65, "loop, precision", "memory"),
    ],
)  # fmt: skip
UPDATE = Table(
    "The update alone",
    "µs per response token",
    {
        "update-fp32": Contender("ours:update", "TextPPO's update, fp32", FP32),
        "update-bf16": Contender("ours:update", "TextPPO's update, bf16", BF16),
        "update-separate-fp32": Contender("ours:update", "TextPPO's update, separate value model, fp32", FP32 | SEPARATE),
        "trl-way-fp32": Contender("trl_way:update", "TRL's way: separate value model, full logits, fp32", FP32),
        "trl-way-bf16": Contender("trl_way:update", "TRL's way: separate value model, full logits, bf16", BF16),
    },
    [
        Bar("update-bf16", "trl-way-fp32", 5.5, "loop, precision, shared value"),
        Bar("update-bf16", "trl-way-bf16", 3.4, "loop, shared value"),
        Bar("update-fp32", "trl-way-fp32", None, "loop, shared value"),
        Bar("update-separate-fp32", "trl-way-fp32", None, "loop"),
    ],
)  # fmt: skip
ROLLOUT = Table(
    "Rollout alone, 32 slots, and even lengths with 128",
    "tokens/s",
    {
        "slots-fp32": Contender("ours:rollout", "TextPPO's rollout, even, fp32", FP32 | EVEN),
        "slots-bf16": Contender("ours:rollout", "TextPPO's rollout, even, bf16", BF16 | EVEN),
        "generate-fp32": Contender("hugging_face:generate", "generate, even, fp32", FP32 | EVEN),
        "generate-bf16": Contender("hugging_face:generate", "generate, even, bf16", BF16 | EVEN),
        "slots-128-fp32": Contender("ours:rollout", "TextPPO's rollout, even, 128 slots, fp32", FP32 | EVEN, SLOTS_128),
        "slots-128-bf16": Contender("ours:rollout", "TextPPO's rollout, even, 128 slots, bf16", BF16 | EVEN, SLOTS_128),
        "generate-128-fp32": Contender("hugging_face:generate", "generate, even, 128 rows, fp32", FP32 | EVEN, SLOTS_128),
        "slots-ragged-fp32": Contender("ours:rollout", "TextPPO's rollout, ragged, fp32", FP32 | RAGGED),
        "slots-ragged-bf16": Contender("ours:rollout", "TextPPO's rollout, ragged, bf16", BF16 | RAGGED),
        "generate-ragged-fp32": Contender("hugging_face:generate", "generate, ragged, fp32", FP32 | RAGGED),
        "generate-ragged-bf16": Contender("hugging_face:generate", "generate, ragged, bf16", BF16 | RAGGED),
    },
    [
        Bar("slots-bf16", "generate-fp32", 2.0, "loop, precision"),
        Bar("slots-fp32", "generate-fp32", None, "loop"),
        Bar("slots-128-bf16", "generate-128-fp32", 2.5, "loop, precision"),
        Bar("slots-128-fp32", "generate-128-fp32", None, "loop"),
        Bar("slots-ragged-bf16", "generate-ragged-bf16", 4.0, "loop"),
        Bar("slots-ragged-fp32", "generate-ragged-fp32", 4.0, "loop"),
    ],
)  # fmt: skip
EVALUATE = Table(
    "evaluate_policy on 64 prompts",
    "ms per episode",
    {
        "evaluate-fp32": Contender("evaluation:ours", "TextPPO's predict, with its cache, fp32", FP32),
        "evaluate-sb3": Contender("evaluation:sb3", "SB3 PPO's predict, the prefix encoded anew, fp32"),
    },
    [Bar("evaluate-fp32", "evaluate-sb3", 10.0, "loop")],
)
ENV = Table(
    "Environment alone, 256 sub-environments, random tokens",
    "tokens/s",
    {
        "vector": Contender("ours:env", "TextVecEnv"),
        "dummy": Contender("sb3:env", "SB3 DummyVecEnv of single environments"),
    },
    [Bar("vector", "dummy", 60.0, "loop")],
)
IMPORT = Table(
    "Import, in a fresh process",
    "ms per import",
    {
        "import-text-envs": Contender("imports:fresh", "import text_envs", {"module": "text_envs"}),
        "import-torch": Contender("imports:fresh", "import torch", {"module": "torch"}),
    },
    [Bar("import-text-envs", "import-torch", 0.25, "loop", "time")],
)
TABLES = {
    "iteration": ITERATION,
    "update": UPDATE,
    "rollout": ROLLOUT,
    "evaluate": EVALUATE,
    "env": ENV,
    "import": IMPORT,
    "sizes": SIZES,
    "prompts": LENGTHS_OF_PROMPT,
    "responses": LENGTHS_OF_RESPONSE,
}
