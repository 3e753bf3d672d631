"""Agents that learn text environments: a causal language model as policy, with Stable-Baselines3's API.

Names load on first use, so that `import agents` (and `rlhf --help`) does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.callbacks import SampleTable, stop_on_signals
    from agents.checkpoint import CheckpointError
    from agents.expert_iteration import TextExpertIteration
    from agents.features import TokenFeatures
    from agents.grpo import TextGRPO
    from agents.nlpo import TextNLPO
    from agents.policy import CausalLMPolicy
    from agents.ppo import TextPPO
    from agents.reinforce import TextREINFORCE, TextREINFORCEPlusPlus
    from agents.rlhf import Loop
    from agents.rloo import TextRLOO
    from agents.settings import LoopSettings
    from agents.sft import finetune

__all__ = [
    "CausalLMPolicy",
    "CheckpointError",
    "Loop",
    "LoopSettings",
    "SampleTable",
    "TextExpertIteration",
    "TextGRPO",
    "TextNLPO",
    "TextPPO",
    "TextREINFORCE",
    "TextREINFORCEPlusPlus",
    "TextRLOO",
    "TokenFeatures",
    "finetune",
    "stop_on_signals",
]

_MODULES = {
    "CausalLMPolicy": "policy",
    "CheckpointError": "packing",
    "Loop": "rlhf",
    "LoopSettings": "settings",
    "SampleTable": "callbacks",
    "TextExpertIteration": "expert_iteration",
    "TextGRPO": "grpo",
    "TextNLPO": "nlpo",
    "TextPPO": "ppo",
    "TextREINFORCE": "reinforce",
    "TextREINFORCEPlusPlus": "reinforce",
    "TextRLOO": "rloo",
    "TokenFeatures": "features",
    "finetune": "sft",
    "stop_on_signals": "callbacks",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'agents' has no attribute {name!r}")
    value = getattr(import_module(f"agents.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
