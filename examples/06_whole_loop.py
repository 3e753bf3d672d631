"""The whole loop in Python: fine-tune, answer, compare, learn a reward, PPO, evaluate; twice.

python examples/06_whole_loop.py [folder]

The same from the command line, with your own files: rlhf loop --config examples/loop.yaml --out runs/mine
"""

import sys

from agents import Loop, LoopSettings
from agents.settings import PPOSettings, RewardSettings, SampleSettings


def main(folder: str = "runs/example-06", **settings) -> dict:
    """Improve SupportReply-v0's own model by feedback of simulated raters, and say what came of it."""
    given = dict(
        env="text_envs/SupportReply-v0",
        rounds=2,
        samples=SampleSettings(prompts=1000, responses=2),
        reward=RewardSettings(epochs=5, learning_rate=5e-4, label_smoothing=0.1),
        ppo=PPOSettings(total_timesteps=60_000),
    )
    result = Loop(LoopSettings(**(given | settings)), folder).run()
    for name, stage in result["stages"].items():
        if name.endswith("evaluate"):
            print(
                f"{name}: gold score {stage['scores']['gold']['mean']:.2f}, KL {stage['kl']['mean']:.1f} nats"
            )
    print(f"Read {folder}/report.html")
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
