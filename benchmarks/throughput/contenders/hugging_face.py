"""transformers' own ``generate``."""

import torch

from benchmarks.throughput.contender import Rounds, watch_dtype
from benchmarks.throughput.setting import EOS, PAD, Setting, make_model, make_prompts, make_tokenizer


def generate(setting: Setting, rounds: Rounds, dtype: str, ends_early: bool) -> None:
    """Batches of ``slots`` prompts, each until its last row has ended; per response token up to and with EOS.

    In bfloat16 the weights themselves are cast, which spares ``generate`` the casts of autocast.
    """
    model = make_model(setting, ends_early).to(getattr(torch, dtype))
    watch_dtype(model, rounds.facts, "dtype")
    tokenizer = make_tokenizer(setting)
    n_episodes = setting.ragged_episodes if ends_early else setting.episodes
    prompts = make_prompts(setting)
    length = setting.limit if ends_early else setting.response
    options = {"eos_token_id": EOS} if ends_early else {"eos_token_id": None}
    torch.manual_seed(0)
    while rounds.next():
        n_tokens = 0
        for start in range(0, n_episodes, setting.slots):
            batch = tokenizer(prompts[start : start + setting.slots], return_tensors="pt").to(model.device)
            sequences = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=True,
                top_k=0,
                top_p=1.0,
                max_new_tokens=length,
                pad_token_id=PAD,
                **options,
            )
            response = sequences[:, setting.prompt :]
            ended = (response == EOS).cumsum(1) - (response == EOS).int() > 0
            n_tokens += int((~ended).sum()) if ends_early else response.numel()
        rounds.units = n_tokens
        rounds.facts["mean length"] = round(n_tokens / n_episodes, 1)
