"""A reward and prompts of this library in TRL's GRPOTrainer (pip install trl datasets).

python examples/08_trl_grpo_with_our_reward.py [folder]
"""

import sys

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from reward_models.handover import as_trl
from text_envs.tasks import support_reply


def main(folder: str = "runs/example-08", steps: int = 50, **settings) -> list[float]:
    """Train SupportReply-v0's own model on its judge and a length, and save it. Returns the mean reward of each step."""
    # The judge asks each prompt's other fields what the reply must name: to TRL they are columns of the dataset.
    prompts = Dataset.from_list(support_reply.prompts("train"))
    tokenizer = AutoTokenizer.from_pretrained(support_reply.FOLDER)
    given = dict(
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=48,
        learning_rate=2e-4,
        beta=0.05,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(support_reply.FOLDER),
        reward_funcs=[as_trl(support_reply.judge), as_trl("length", target=20)],
        args=GRPOConfig(output_dir=folder, max_steps=steps, reward_weights=[1.0, 0.1], **(given | settings)),
        train_dataset=prompts,
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(folder)
    tokenizer.save_pretrained(folder)
    return [row["reward"] for row in trainer.state.log_history if "reward" in row]


if __name__ == "__main__":
    main(*sys.argv[1:])
