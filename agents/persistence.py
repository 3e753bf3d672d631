"""Saving and loading an algorithm: JSON and safetensors in one zip, never pickle."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces, get_system_info

from agents import checkpoint, processes
from agents.critics import RewardTrunk
from agents.envs import as_vec_env
from agents.episodes import EpisodeBuffer
from agents.kl import KLController
from agents.lm import LanguageModel
from agents.lora import has_adapter
from agents.lora_files import adapter_record, check_base, hash_of_base
from agents.packing import (
    CheckpointError,
    pack_module,
    pack_optimizer,
    pack_tree,
    unpack_module,
    unpack_optimizer,
    unpack_tree,
)
from agents.policy import CausalLMPolicy
from agents.resume import ResumableAlgorithm
from agents.saved_settings import (
    architecture_of,
    json_only,
    model_of_architecture,
    models_of_settings,
    plain_value,
    schedule_from_json,
    schedule_to_json,
)
from reward_models.completion import in_short

BUILT = ("model", "lora", "reward_model")  # policy_kwargs that are not saved as they are given
MAX_ENVS = 64  # sub-environments that a single environment is turned into, at most


class CheckpointedAlgorithm(ResumableAlgorithm):
    """``save``, ``load``, ``set_parameters`` and ``set_env`` of the text algorithms, under Stable-Baselines3's signatures.

    A checkpoint holds the weights of policy, critic and reference, the optimiser, the settings, and the moment at which it
    was saved (see ``agents.resume``); of a model with a LoRA adapter, the adapter and what names its base. Loading one
    executes nothing that is in it: a doctored or truncated file raises ``CheckpointError``.
    """

    policy: CausalLMPolicy
    reference: LanguageModel
    reference_model: Any
    reference_kwargs: dict[str, Any] | None
    n_episodes: int
    _n_envs_saved: int | None = None

    # Attributes that are saved as they are; an algorithm adds its own.
    saved_attributes: tuple[str, ...] = (
        "n_episodes", "batch_size", "micro_batch_size", "max_tokens_per_batch", "n_epochs", "samples_per_prompt",
        "max_grad_norm", "gamma", "gae_lambda", "ent_coef", "vf_coef", "kl_estimator", "missing_eos_penalty", "score_clip",
        "target_kl", "verbose", "seed", "_stats_window_size",
    )  # fmt: skip
    saved_schedules: tuple[str, ...] = ("learning_rate",)

    @property
    def n_own_episodes(self) -> int:
        """The episodes of a rollout that this process plays."""
        return self.n_episodes // processes.count()

    @property
    def extra_modules(self) -> dict[str, torch.nn.Module]:
        """What an algorithm holds besides policy and reference, by name: its weights go into the checkpoint too."""
        return {}

    @property
    def _reference_is_base(self) -> bool:
        """Whether the reference is what lies below the policy's adapter."""
        return self.reference_model is None and has_adapter(self.policy.lm.model)

    def save(self, path: Any, exclude: Any = None, include: Any = None, resume: bool = True) -> None:
        """Write a checkpoint, atomically: the file at ``path`` (".zip" may be left out) is the old or the new one.

        Args:
            path: a path, or a binary file.
            exclude, include: accepted for Stable-Baselines3's sake; what is saved is fixed.
            resume: whether training is to go on from it exactly (``learn`` says how). Without, optimiser, random numbers and
                the like are left out: half the size, enough to predict or to begin another training.

        Called during a rollout, by a callback say, it saves the run as it was before that rollout, which is then generated
        again: ``num_timesteps`` is that of then. Of several processes all call it, and the first one writes.
        """
        moment = self._moment_to_save() if resume else None
        counters = moment["counters"] if moment else {name: getattr(self, name) for name in self.counters}
        kl_controller = moment["kl_controller"] if moment else vars(self.kl_controller)
        lm, critic, reference = self.policy.lm, self.policy.critic, self.reference
        adapter = adapter_record(lm.model)
        settings = {
            "algorithm": type(self).__name__,
            "attributes": {
                name: plain_value(name, value)
                for name, value in [
                    *((n, getattr(self, n)) for n in self.saved_attributes),
                    *counters.items(),
                ]
            },
            "schedules": {
                name: schedule_to_json(name, getattr(self, name), self._current_progress_remaining)
                for name in self.saved_schedules
            },
            "kl_controller": kl_controller,
            "policy_kwargs": json_only({k: v for k, v in self.policy_kwargs.items() if k not in BUILT}),
            "spaces": {
                "max_length": self.observation_space["input_ids"].shape[0],  # type: ignore[index]
                "vocab_size": int(self.action_space.n),  # type: ignore[attr-defined]
            },
            "n_envs": None if self.env is None else self.n_envs,
            "model": architecture_of(lm),
            "critic": architecture_of(critic) | {"lora": adapter_record(critic.model)}
            if isinstance(critic, RewardTrunk)
            else None,
            "lora": adapter and adapter | {"sha256": hash_of_base(self.policy)},
            "reference": architecture_of(reference) if self.reference_model is not None else None,
            "reference_kwargs": {name: str(value) for name, value in (self.reference_kwargs or {}).items()},
        }
        members = {
            "settings.json": settings,
            "policy.safetensors": pack_module(self.policy),
            **({} if self._reference_is_base else {"reference.safetensors": pack_module(reference.model)}),
            **{f"{name}.safetensors": pack_module(module) for name, module in self.extra_modules.items()},
        }
        if resume:
            settings["optimizer"], members["optimizer.safetensors"] = pack_optimizer(self.policy.optimizer)
        if moment:
            members["moment.json"], members["moment.safetensors"] = pack_tree(moment)
        if processes.is_first():
            checkpoint.write(path, members)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | os.PathLike,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ):
        """A new model from a checkpoint.

        Args:
            path: of the checkpoint; ".zip" may be left out.
            env: to go on training; not needed for prediction.
            device: as in Stable-Baselines3.
            custom_objects, kwargs: attributes that replace the saved ones, such as ``learning_rate``. ``policy_kwargs`` are
                added to the saved ones: ``policy_kwargs=dict(model=...)`` gives an adapter its base model, which a checkpoint
                only names. ``tensorboard_log`` is not saved: a file must not say where a run writes.
            print_system_info: print the versions here.
            force_reset: the first rollout starts from a reset; always so here.

        Raises:
            CheckpointError: for a file that is damaged, doctored, or another algorithm's; for an adapter whose base model is
                not there, or another one.
        """
        if print_system_info:
            get_system_info()
        members, overrides = checkpoint.read(path), (custom_objects or {}) | kwargs
        with _explained(path):
            settings = members["settings.json"]
            if settings["algorithm"] != cls.__name__:
                raise CheckpointError(
                    f"This is a checkpoint of {settings['algorithm']}, not of {cls.__name__}: in {path}. "
                    f"Load it with {settings['algorithm']}.load."
                )
            observation_space, action_space, n_envs = _spaces(settings)
        if env is not None:
            env = as_vec_env(env, n_envs)
            check_for_correct_spaces(env, observation_space, action_space)
        model = cls(policy="CausalLMPolicy", env=env, device=device, _init_setup_model=False)  # type: ignore[call-arg]
        model.observation_space, model.action_space = observation_space, action_space
        with _explained(path):
            model._set_up_from(settings, overrides)
            check_base(model.policy, settings, path)
            unpack_module(model.policy, members["policy.safetensors"])
            if not model._reference_is_base:
                unpack_module(model.reference.model, members["reference.safetensors"])
            for name, module in model.extra_modules.items():
                unpack_module(module, members[f"{name}.safetensors"])
            if "optimizer.safetensors" in members:
                unpack_optimizer(
                    model.policy.optimizer, settings["optimizer"], members["optimizer.safetensors"]
                )
            if "moment.json" in members:
                model._take_up(unpack_tree(members["moment.json"], members["moment.safetensors"]))
                if "seed" in overrides:
                    model.set_random_seed(model.seed)
        return model

    def _set_up_from(self, settings: dict[str, Any], overrides: dict[str, Any]) -> None:
        saved = settings["attributes"]
        # These alone, whatever else the file holds; what a newer version of the library added may be missing.
        for name in (*self.saved_attributes, *self.counters):
            if name in saved:
                setattr(self, name, saved[name])
        for name in self.saved_schedules:
            setattr(self, name, schedule_from_json(settings["schedules"][name]))
        self.kl_controller = KLController(**settings["kl_controller"])
        if settings["reference"] is not None:
            self.reference_model = model_of_architecture(settings["reference"])
        self.reference_kwargs = settings.get("reference_kwargs")
        self._n_envs_saved = settings.get("n_envs")
        given = overrides.get("policy_kwargs") or {}
        kept = {name: value for name, value in settings["policy_kwargs"].items() if name not in BUILT}
        self.policy_kwargs = kept | given | models_of_settings(settings, given)
        self.__dict__.update({name: value for name, value in overrides.items() if name != "policy_kwargs"})
        self._setup_model()

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: Any = "auto") -> None:
        """As Stable-Baselines3's: parameters from ``get_parameters``, or from a checkpoint, which is read without pickle."""
        self._forget_moment()
        if isinstance(load_path_or_dict, dict):
            super().set_parameters(load_path_or_dict, exact_match, device)
            return
        members = checkpoint.read(load_path_or_dict)
        with _explained(load_path_or_dict):
            settings = members["settings.json"]
            check_base(self.policy, settings, load_path_or_dict)
            unpack_module(self.policy, members["policy.safetensors"])
            if "optimizer.safetensors" in members:
                unpack_optimizer(
                    self.policy.optimizer, settings["optimizer"], members["optimizer.safetensors"]
                )

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """As Stable-Baselines3's; the number of sub-environments may differ."""
        env = as_vec_env(env, self._n_envs_saved or min(self.n_own_episodes, MAX_ENVS))
        self.n_envs = env.num_envs
        super().set_env(env, force_reset)
        self._forget_moment(but_loaded=True)
        buffer = self.rollout_buffer
        self.rollout_buffer = EpisodeBuffer(self.n_envs, buffer.max_length, buffer.vocab_size, self.device)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the language model, and the environment's tokenizer, as a plain Hugging Face folder."""
        tokenizer = None if self.env is None else self.env.get_attr("tokenizer")[0]
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.policy.save_pretrained(folder, tokenizer)


@contextmanager
def _explained(path: Any) -> Iterator[None]:
    """What the content of a checkpoint makes transformers, torch or this library raise is a CheckpointError."""
    try:
        yield
    except (CheckpointError, processes.ProcessLost, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CheckpointError(
            f"No model can be made of the checkpoint ({in_short(error)}): in {path}. It was not written by this library's "
            "save, or does not fit what was given to load; take another one."
        ) from error


def _spaces(settings: dict[str, Any]) -> tuple[spaces.Dict, spaces.Discrete, int]:
    """The spaces of the environment that a checkpoint's model was trained on, and how many sub-environments there were."""
    length, vocab_size = settings["spaces"]["max_length"], settings["spaces"]["vocab_size"]
    n_own = settings["attributes"]["n_episodes"] // processes.count()
    n_envs = settings.get("n_envs") or min(max(1, n_own), MAX_ENVS)
    if type(n_envs) is not int or n_envs < 1:
        raise ValueError(f"n_envs is {n_envs!r}")
    observation_space = spaces.Dict(
        input_ids=spaces.Box(0, vocab_size - 1, (length,), np.int64),
        attention_mask=spaces.MultiBinary(length),
    )
    return observation_space, spaces.Discrete(vocab_size), n_envs
