"""Text generation as Gymnasium environments. Importing this registers their ids, and imports no torch.

import gymnasium as gym
import text_envs

env = gym.make("text_envs/SupportReply-v0")
env = gym.make("text_envs/TextGeneration-v0", tokenizer=folder, prompts=["Once"], reward_model=my_function)
"""

import gymnasium as gym

from reward_models import Completion, RewardModel, register
from text_envs.encoding import PromptError
from text_envs.env import TextGenerationEnv
from text_envs.prompts import PromptSource, PromptStream
from text_envs.task import TextTask
from text_envs.tokens import TokenBatch
from text_envs.vector import TextVectorEnv

__all__ = [
    "Completion",
    "PromptError",
    "PromptSource",
    "PromptStream",
    "TextGenerationEnv",
    "TextTask",
    "TextVecEnv",
    "TextVectorEnv",
    "TokenBatch",
]


def __getattr__(name: str) -> object:
    if name == "TextVecEnv":  # imports Stable-Baselines3, and with it torch: only when asked for
        from text_envs.sb3 import TextVecEnv

        return TextVecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _support_judge() -> RewardModel:
    from text_envs.tasks.support_judge import judge

    return judge


register("support_reply", _support_judge)

# One line per environment. No max_episode_steps: TimeLimit would cut an episode before it is scored.
for _name, _module, _class in (
    ("TextGeneration", "text_envs.env", "TextGenerationEnv"),
    ("SupportReply", "text_envs.tasks.support_reply", "SupportReplyEnv"),
    ("KeywordSentence", "text_envs.tasks.keyword_sentence", "KeywordSentenceEnv"),
    ("DataToText", "text_envs.tasks.data_to_text", "DataToTextEnv"),
    ("Simplify", "text_envs.tasks.simplify", "SimplifyEnv"),
    ("Sentiment", "text_envs.tasks.sentiment", "SentimentEnv"),
    ("IMDBContinuation", "text_envs.tasks.imdb_continuation", "IMDBContinuationEnv"),
    ("TLDR", "text_envs.tasks.tldr", "TLDREnv"),
    ("Arithmetic", "text_envs.tasks.arithmetic", "ArithmeticEnv"),
    ("JSONRecord", "text_envs.tasks.json_record", "JSONRecordEnv"),
    ("ReasoningGym", "text_envs.tasks.reasoning_gym", "ReasoningGymEnv"),
    ("Bandit", "text_envs.tasks.bandit", "BanditEnv"),
    ("CountLetter", "text_envs.tasks.count_letter", "CountLetterEnv"),
    ("Copy", "text_envs.tasks.copy", "CopyEnv"),
    ("Reverse", "text_envs.tasks.reverse", "ReverseEnv"),
    ("Sort", "text_envs.tasks.sort", "SortEnv"),
    ("IncreasingNumbers", "text_envs.tasks.increasing_numbers", "IncreasingNumbersEnv"),
    ("DateSentences", "text_envs.tasks.date_sentences", "DateSentencesEnv"),
):
    gym.register(
        id=f"text_envs/{_name}-v0",
        entry_point=f"{_module}:{_class}",
        vector_entry_point=f"{_module}:make_vec",
    )
