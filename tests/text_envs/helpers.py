"""Small tokenizers and environments, all made in memory."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from text_envs import TextGenerationEnv, TextVectorEnv
from text_envs.letters import letter_tokenizer

LETTERS = letter_tokenizer("abcdefgh")  # the letter a is token 0, b is 1, ...; no special token


def byte_tokenizer(bos="<s>", eos="</s>", pad="<pad>"):
    """Bytes, with the special tokens that are named; BOS is put before every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
    tokenizer.add_special_tokens([token for token in named.values() if token])
    if bos:
        special = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", None, special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


BYTES = byte_tokenizer()


def response_length(completions):
    return [float(len(completion.response_ids)) for completion in completions]


def letter_env(prompts=("a",), **kwargs):
    return TextGenerationEnv(
        **{**dict(tokenizer=LETTERS, prompts=prompts, reward_model=response_length), **kwargs}
    )


def letter_vector_env(n, prompts=("a",), **kwargs):
    return TextVectorEnv(
        n, **{**dict(tokenizer=LETTERS, prompts=prompts, reward_model=response_length), **kwargs}
    )


def play(env, tokens, **reset):
    """The transitions of one episode with these tokens."""
    env.reset(seed=0, **reset)
    return [env.step(token) for token in tokens]
