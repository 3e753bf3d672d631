"""A reward of this library as the Python file that OpenRLHF takes for its `--remote_rm_url`.

python examples/10_reward_for_openrlhf.py [reward] [file.py]

Then, where OpenRLHF and this library are installed: python -m openrlhf.cli.train_ppo_ray --remote_rm_url file.py ...
"""

import importlib.util
import sys

from reward_models.handover import write_openrlhf


def main(reward="sentiment", path: str = "runs/example-10/reward_func.py") -> dict:
    """Write the file, and call it as OpenRLHF does: prompt and response in one text, the EOS still at its end."""
    written = write_openrlhf(path, reward, endings=["</s>", "<|endoftext|>", "<|im_end|>"])
    spec = importlib.util.spec_from_file_location("reward_func", written)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    prompts = ["The film was", "The film was"]
    queries = ["The film was a wonderful delight.</s>", "The film was a terrible bore.</s>"]
    result = module.reward_func(queries, prompts, labels=[None, None])
    print(f"{written}: {result['rewards'].tolist()}")
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
