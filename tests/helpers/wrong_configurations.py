"""Configurations of operators that cannot run, or are hardly meant, with what is said of each.

A row on one machine changes the quickstart's configuration, one on a cluster that of an experiment
on a hardware group. In a value, the name of a folder of `wrong_folders` stands for its path.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from model_folders import SCORES, SIZES, model_folder, sizes_of
from omegaconf import DictConfig, OmegaConf

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.preflight.rules import faults_of
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.settings import ConfigError

Case = tuple[tuple[str, ...], str]

ROW = {
    "data_source": "micro_apps",
    "prompt": [{"role": "user", "content": "Print the sum."}],
    "ability": "code",
    "reward_model": {"style": "rule", "ground_truth": '{"inputs": ["1 2"], "outputs": ["3"]}'},
    "extra_info": {"index": 0},
}
"""A row of a dataset that every check accepts."""

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
REWARD = "reward.custom_reward_function"
MODEL, CACHE = "actor_rollout_ref.model.path", "engine_kwargs.vllm.kv_cache_memory_bytes"
CRITIC = ("critic.enable=true", f"critic.model.path={ensure_checkpoint()}")
DIALOGUE = f"{REWARD}.path=pkg://reward.dialogue"
SERVED = ("reward.reward_model.enable=true", "reward.reward_model.enable_resource_pool=true",
          "reward.reward_model.nnodes=1", "reward.reward_model.n_gpus_per_node=1",
          "reward.reward_model.rollout.name=vllm", "refiner.perfect_reward=null",
          DIALOGUE)  # fmt: skip
ANOTHER = "refiner.source=model"
FILTERED = ("algorithm.filter_groups.enable=true", "reward.reward_manager.name=dapo",
            "algorithm.filter_groups.metric=score")  # fmt: skip
MACHINE = ("machine.gpu_memory_gib=80", "machine.gpus_per_node=8", "machine.nodes=1")

VERLS_MANAGER = "verl.trainer.ppo.v1.agent_loop_tq.AgentLoopManagerTQ"

ON_ONE_MACHINE: list[Case] = [
    # Lengths of the servers and their caches.
    ((f"{ROLLOUT}.max_model_len=100",), f"{ROLLOUT}.max_model_len=null"),
    ((f"{ROLLOUT}.max_model_len=9000",), "the model's context has 8192 tokens"),
    ((f"{ROLLOUT}.{CACHE}=16384",), f"{ROLLOUT}.{CACHE}=16384: a cache of"),
    ((f"refiner.rollout.{CACHE}=16384",), f"refiner.rollout.{CACHE}=16384: a cache of"),
    ((MODEL + "=<short-context>", "data.max_response_length=4000"), "the model's context of 64"),
    # A prompt of -7233 tokens was once proposed.
    ((ANOTHER, "refiner.model_path=<short-context>"), "shorter data.max_response_length"),
    ((f"{ROLLOUT}.log_prob_max_token_len_per_gpu=100",), f"{ROLLOUT}.log_prob_max_token_len"),
    (("actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=100",), "ref.log_prob_max_token_len"),
    ((*CRITIC, "critic.ppo_infer_max_token_len_per_gpu=100"), "critic.ppo_infer_max_token_len"),
    ((f"{ROLLOUT}.log_prob_use_dynamic_bsz=false",), f"{ROLLOUT}.log_prob_use_dynamic_bsz=False"),
    # Values of a wrong type or out of range.
    (("trainer.nnodes=0",), "trainer.nnodes=0 is refused"),
    (("trainer.n_gpus_per_node=0",), "trainer.n_gpus_per_node=0 is refused"),
    ((f"{ACTOR}.ppo_mini_batch_size=0",), f"{ACTOR}.ppo_mini_batch_size=0 is refused"),
    ((f"{ROLLOUT}.tensor_model_parallel_size=0",), f"{ROLLOUT}.tensor_model_parallel_size=0"),
    ((f"{MODEL}=null",), f"{MODEL}=None is refused"),
    (("data.train_files=null",), "data.train_files=None is refused. Fix: set it to a path"),
    (("data.train_files=[]",), "data.train_files=[] is refused"),
    ((f"{ACTOR}.loss_agg_mode=token_mean",), f"{ACTOR}.loss_agg_mode='token_mean' is refused"),
    (("constraint.lambda=.inf",), "constraint.lambda=inf is refused"),
    (("constraint.lambda=.nan",), "constraint.lambda=nan is refused"),
    ((f"{ACTOR}.optim.lr=-1.0e-6",), f"{ACTOR}.optim.lr=-1e-06 is refused"),
    (("critic.optim.lr=.inf",), "critic.optim.lr=inf is refused"),
    ((f"{ACTOR}.optim.betas=[0.9]",), f"{ACTOR}.optim.betas=[0.9] is refused"),
    ((f"{ACTOR}.clip_ratio_c=0.5",), f"{ACTOR}.clip_ratio_c=0.5 is refused"),
    (("refiner.rollout.gpu_memory_utilization=1.5",), "refiner.rollout.gpu_memory_utilization=1.5"),
    ((f"{ROLLOUT}.n=two",), f"{ROLLOUT}.n='two' is refused"),
    (("data.train_batch_size=8.5",), "data.train_batch_size=8.5 is refused"),
    (("algorithm.gamma=1.2",), "algorithm.gamma=1.2 is refused"),
    (("data=null",), "data=None: it is a section of keys"),
    (("constraint=5",), "constraint=5: it is a section of keys"),
    (("refiner.rollout=ngram",), "refiner.rollout='ngram'"),
    # Names.
    ((f"{ROLLOUT}.name=vlm",), f"{ROLLOUT}.name='vlm': verl has none of this name. Fix: did you"),
    (("refiner.rollout.name=trtllm",), "refiner.rollout.name='trtllm'"),
    ((*SERVED, "reward.reward_model.rollout.name=vvlm"), "reward.reward_model.rollout.name='vvlm'"),
    (("trainer.logger=[console, wanb]",), "trainer.logger='wanb'"),
    ((f"{ACTOR}.strategy=fdsp2",), f"{ACTOR}.strategy='fdsp2'"),
    ((f"{ACTOR}.strategy=megatron",), "choose the group, strategy=megatron or megatron_tp8"),
    ((*CRITIC, "critic.strategy=megatron"), "strategy=fsdp2 or fsdp2_offload for both"),
    ((f"{ACTOR}.optim.learning_rate=1.0e-6",), f"~{ACTOR}.optim.learning_rate takes it away"),
    ((f"{ACTOR}.optim.weigth_decay=0.1",), "did you mean weight_decay?"),
    # What heads and sequences are cut into.
    ((f"{ROLLOUT}.tensor_model_parallel_size=8",), f"Fix: {ROLLOUT}.tensor_model_parallel_size=1"),
    (("refiner.rollout.tensor_model_parallel_size=8",), "4 attention heads, which 8 does not"),
    ((f"{ACTOR}.ulysses_sequence_parallel_size=8",), "attention heads, which 8 does not divide"),
    ((f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=2",), "model.use_remove_padding=True"),
    ((*CRITIC, "critic.ulysses_sequence_parallel_size=2"), "verl hands it to no engine"),
    # Models that read each other's tokens.
    ((ANOTHER, "refiner.model_path=<other-tokenizer>"), "2 tokens have other ids ('#' first)"),
    ((ANOTHER, "refiner.model_path=<small-vocabulary>"), "its embedding has 100 rows"),
    ((f"{MODEL}=<small-vocabulary>",), "the policy's tokenizer"),
    (("critic.enable=true", "critic.model.path=<small-vocabulary>"), "critic.model.path="),
    # The reward.
    (("reward.reward_model.enable_resource_pool=true",), "reserves 1 GPUs for a reward model"),
    ((*SERVED, "reward.reward_model.nnodes=0"), "reward.reward_model.nnodes=0: the reward model's"),
    ((*SERVED, "reward.reward_model.model_path=<7B>"), "Qwen2ForCausalLM, which gives no score"),
    ((*SERVED, "reward.reward_model.model_path=<two-labels>"), "its head has 2 labels"),
    ((DIALOGUE, f"{REWARD}.reward_kwargs={{engine: vllm, model: m, scal: 2}}"), "mean scale?"),
    ((DIALOGUE, f"{REWARD}.reward_kwargs={{engine: vllm, model: m, scale: 0}}"), "scale=0: use a"),
    ((DIALOGUE, f"{REWARD}.reward_kwargs={{engine: vllm, model: m, scale: one}}"), "of type float"),
    ((DIALOGUE, f"{REWARD}.reward_kwargs={{engine: vlm, model: m}}"), "engine='vlm': use one of"),
    ((DIALOGUE, f"{REWARD}.reward_kwargs={{engine: vllm}}"), "the function asks for model"),
    ((DIALOGUE,), "extra_info.conversation is missing"),
    ((f"{REWARD}.path=pkg://reward.math_dapo",), "ground_truth is JSON, no answer to a problem"),
    ((f"{REWARD}.name=compute_scores",), f"Fix: {REWARD}.name=compute_score"),
    # Prompts that leave nothing.
    (("data.filter_overlong_prompts=true", "data.max_prompt_length=2"), "leaves 0 prompts"),
    (("data.train_max_samples=4",), "data.train_max_samples=4 is below data.train_batch_size=8"),
    (("run.dir=/dev/null/runs",), "run.dir='/dev/null/runs'"),
    # Values that are possible one by one and make no sense.
    ((f"{ROLLOUT}.temperature=0",), "the rollouts of a prompt would all be the same"),
    ((*CRITIC, "algorithm.adv_estimator=gae", f"{ROLLOUT}.temperature=0.0"), "divides the logits"),
    ((f"{ROLLOUT}.temperature=1000",), f"{ROLLOUT}.temperature=1000 is refused"),
    ((f"{ROLLOUT}.top_p=0",), f"{ROLLOUT}.top_p=0 is refused"),
    ((f"{ROLLOUT}.top_k=-5",), f"{ROLLOUT}.top_k=-5 is refused"),
    ((f"{ROLLOUT}.val_kwargs.top_p=0",), f"{ROLLOUT}.val_kwargs.top_p=0 is refused"),
    ((f"{ROLLOUT}.val_kwargs.temperature=100",), f"{ROLLOUT}.val_kwargs.temperature=100 is refus"),
    ((f"{ROLLOUT}.val_kwargs.do_sample=true", f"{ROLLOUT}.val_kwargs.temperature=0"),
     "with do_sample=True: verl refuses it"),
    (("refiner.temperature=50",), "refiner.temperature=50 is refused"),
    ((*FILTERED, "algorithm.filter_groups.metric=scor"), "Fix: algorithm.filter_groups.metric="),
    ((*FILTERED, "algorithm.filter_groups.metric=acc"), "pkg://reward.apps gives no such number"),
    ((*FILTERED, "algorithm.filter_groups.metric=null"), "no number is compared"),
    (("refiner.perfect_reward=-1",), "refiner.perfect_reward=-1: the reward goes up to 1"),
    (("refiner.perfect_reward=0.5",), "Fix: refiner.perfect_reward=1"),
    ((f"{REWARD}.reward_kwargs={{accepted: 2.0}}",), "the reward goes up to 2"),
    ((f"{ACTOR}.clip_ratio_low=0.9", f"{ACTOR}.clip_ratio_high=0.1"),
     f"Fix: {ACTOR}.clip_ratio_low=0.1 {ACTOR}.clip_ratio_high=0.9"),
    ((f"{ACTOR}.clip_ratio_high=28",), f"{ACTOR}.clip_ratio_high=28: a token's probability could"),
    ((f"{ACTOR}.clip_ratio_low=1.5", f"{ACTOR}.clip_ratio_high=0.3"), "no ratio is below 1 - 1.5"),
    ((f"{ROLLOUT}.max_num_batched_tokens=8",), "max_num_batched_tokens=8 is below"),
    (("refiner.rollout.max_num_batched_tokens=8",), "refiner.rollout.max_num_batched_tokens=8 is"),
    ((f"{ROLLOUT}.enable_chunked_prefill=false", f"{ROLLOUT}.max_num_seqs=8",
      f"{ROLLOUT}.max_num_batched_tokens=32"),
     "with enable_chunked_prefill=False: a sequence has up to"),
    (("trainer.critic_warmup=1000",), "in none of which the actor would be trained"),
    (("algorithm.adv_estimator=gae", "critic.enable=false"), "takes a critic's values. Fix: "),
    (("trainer.device=gpu",), "trainer.device='gpu' is refused. Fix: set it to 'cuda', 'cpu'"),
    ((f"{ROLLOUT}.dtype=fp99",), f"{ROLLOUT}.dtype='fp99' is refused"),
    ((f"{ROLLOUT}.mode=async2",), f"{ROLLOUT}.mode='async2' is refused"),
    (("data.shuffle=maybe",), "data.shuffle='maybe' is refused"),
    (("trainer.val_only=yes please",), "trainer.val_only='yes please' is refused"),
    ((*CRITIC, "critic.ppo_epochs=0"), "critic.ppo_epochs=0 is refused"),
    ((*CRITIC, "critic.cliprange_value=0"), "critic.cliprange_value=0 is refused"),
    ((*SERVED, "reward.reward_model.model_path=null"), "no reward model is named"),
    ((f"{MODEL}=~/nothing",), "could not be read"),
    # Sizes that only a slip of the keyboard makes.
    ((f"{ACTOR}.optim.lr=1.0e+18",), f"{ACTOR}.optim.lr=1e+18 is refused"),
    (("critic.optim.lr=5",), "critic.optim.lr=5 is refused"),
    ((f"{ACTOR}.optim.weight_decay=1.0e+9",), f"{ACTOR}.optim.weight_decay=1000000000.0 is"),
    ((f"{ACTOR}.optim.betas=[0.9, 1.0]",), f"{ACTOR}.optim.betas=[0.9, 1.0] is refused"),
    ((f"{ACTOR}.entropy_coeff=1.0e+6",), f"{ACTOR}.entropy_coeff=1000000.0 is refused"),
    ((f"{ACTOR}.ppo_epochs=100000",), f"{ACTOR}.ppo_epochs=100000 is refused"),
    ((f"{ROLLOUT}.n=1000000",), f"{ROLLOUT}.n=1000000 is refused"),
    ((f"{ROLLOUT}.val_kwargs.n=1000000",), f"{ROLLOUT}.val_kwargs.n=1000000 is refused"),
    ((f"{ROLLOUT}.agent.num_workers=100000",), f"{ROLLOUT}.agent.num_workers=100000 is refused"),
    (("reward.num_workers=100000",), "reward.num_workers=100000 is refused"),
    (("data.max_response_length=1000000000000",), "data.max_response_length=1000000000000 is refu"),
    (("data.train_batch_size=1000000000000",), "data.train_batch_size=1000000000000 is refused"),
    (("trainer.nnodes=1000000",), "trainer.nnodes=1000000 is refused"),
    (("constraint.lambda=1.0e+18",), "constraint.lambda=1e+18 is refused"),
    (("constraint.static_kl.coef=1.0e+18",), "constraint.static_kl.coef=1e+18 is refused"),
    (("refiner.deadline_s=1.0e+18",), "refiner.deadline_s=1e+18 is refused"),
    (("refiner.max_concurrency=1000000000",), "refiner.max_concurrency=1000000000 is refused"),
    (("refiner.pool.nnodes=1000000",), "refiner.pool.nnodes=1000000 is refused"),
    (("run.seed=10000000000000",), "run.seed=10000000000000 is refused"),
    # Switches in place of numbers, and the other way round.
    (("constraint.lambda=true",), "constraint.lambda=True is refused. Fix: set it to a number"),
    (("constraint.lambda_end=false",), "constraint.lambda_end=False is refused"),
    (("constraint.chord.decay_steps=true",), "constraint.chord.decay_steps=True is refused"),
    (("constraint.distill.top_k=true",), "constraint.distill.top_k=True is refused"),
    (("monitor.kl_every_steps=true",), "monitor.kl_every_steps=True is refused"),
    (("run.log_share=true",), "run.log_share=True is refused"),
    (("refiner.perfect_reward=true",), "refiner.perfect_reward=True is refused"),
    (("refiner.block_tokens=true",), "refiner.block_tokens=True is refused"),
    (("refiner.observe=1",), "refiner.observe=1 is refused. Fix: set it to true or false"),
    (("constraint.chord.phi=0.5",), "constraint.chord.phi=0.5 is refused"),
    (("refiner.late_join=0",), "refiner.late_join=0 is refused"),
    ((f"{ROLLOUT}.n=true",), f"{ROLLOUT}.n=True is refused"),
    ((f"{ACTOR}.optim.lr=true",), f"{ACTOR}.optim.lr=True is refused"),
    # The machine that the preflight is told of.
    ((*MACHINE, "machine.gpu_memory=80"), "machine.gpu_memory=80: unknown key. Fix: did you mean"),
    ((*MACHINE, "machine.colour=8"), "machine.colour=8: unknown key. Fix: The keys here"),
    (("trainer.device=cuda", "machine.nodes=1"), "machine.gpu_memory_gib: missing. Fix: +machine"),
    # Templates for other problems.
    (("refiner.template=math-v1",), "refiner.template='math-v1' is for mathematics, and"),
    (("refiner.template=dialogue-v1",), "judges code. Fix: refiner.template=code-v1"),
    (("refiner.template=math-blocks-v1", "refiner.block_tokens=64"),
     "judges code. Fix: refiner.template=code-blocks-v1"),
    # What once passed, and ended at the first step or did what was not meant.
    ((f"{ACTOR}.policy_loss.loss_mode=gspoo",), "did you mean gspo?"),
    ((f"{ACTOR}.policy_loss.loss_mode=mine",), f"{ACTOR}.policy_loss.loss_mode='mine': verl has"),
    (("ray_kwargs.ray_init.num_cpus=1",), "Fix: ray_kwargs.ray_init.num_cpus=6"),
    (("ray_kwargs.ray_init.num_gpus=0",), "Fix: ray_kwargs.ray_init.num_gpus=1"),
    (("actor_rollout_ref.hybrid_engine=false",), "Fix: actor_rollout_ref.hybrid_engine=true"),
    (("actor_rollout_ref.hybrid_engine=no",), "actor_rollout_ref.hybrid_engine=False"),
    ((ANOTHER, "refiner.model_path=<classifier>"), "LlamaForSequenceClassification, which writes"),
    ((f"{MODEL}=<classifier>",), "LlamaForSequenceClassification, which writes no text"),
    ((f"{REWARD}.reward_kwargs={{wrong_answer: 2.0}}",), "use a number below accepted=1.0"),
    ((f"{REWARD}.reward_kwargs={{accepted: -1.0}}",), "use a number below accepted=-1.0"),
    ((f"{REWARD}.reward_kwargs={{accepted: .inf}}",), "accepted=inf: use a finite number"),
    (("refiner.template=code-blocks-v1", "refiner.block_tokens=100"),
     "at most 64 tokens (data.max_response_length)"),
    (("refiner.deadline_s=0.001",), "refiner.deadline_s=0.001 is refused"),
    (("refiner.step_deadline_s=0.001",), "refiner.step_deadline_s=0.001 is refused"),
    (("refiner.watch_every_s=1.0e-6",), "refiner.watch_every_s=1e-06 is refused"),
    (("run.arm=mine/first",), "run.arm='mine/first' is refused. Fix: set it to a name without"),
    (("run.setting=..",), "run.setting='..' is refused. Fix: set it to a name without a slash"),
    (("run.setting=''",), "run.setting='' is refused. Fix: set it to a text that is not empty"),
    (("trainer.project_name=''",), "trainer.project_name='' is refused. Fix: set it to a text"),
    # Names that verl looks up once models are loaded, or in the first step.
    (("algorithm.adv_estimator=mine",), "algorithm.adv_estimator='mine': verl has no such estima"),
    (("algorithm.adv_estimator=remax",), "adv_estimator='remax': it reads rewards of greedy roll"),
    (("constraint.kind=none", "algorithm.adv_estimator=gdpo"), "Fix: algorithm.adv_estimator=grpo"),
    ((f"{ROLLOUT}.n=1", "algorithm.adv_estimator=grpo_passk"), "nothing to be compared with. Fix:"),
    ((f"{ACTOR}.kl_loss_type=low_var",), "did you mean low_var_kl?"),
    ((f"{ACTOR}.kl_loss_type=null",), f"{ACTOR}.kl_loss_type=None: verl has none of this name"),
    (("algorithm.kl_penalty=full",), "algorithm.kl_penalty='full': verl has none of this name"),
    (("reward.reward_manager.name=dap",), "did you mean dapo? one of naive, dapo"),
    ((f"{ROLLOUT}.agent.default_agent_loop=single_turn",), "did you mean single_turn_agent?"),
    ((f"{ROLLOUT}.checkpoint_engine.backend=ncl",), "did you mean nccl?"),
    (("transfer_queue.backend.storage_backend=Redis",), "one of SimpleStorage, RayStore"),
    (("actor_rollout_ref.model.external_lib=my_models",), "there is no such module. Fix: actor_"),
    (("actor_rollout_ref.model.override_config.attn_implementation=flash_attn",),
     "attn_implementation='flash_attn': verl has none of this name. Fix: did you mean flash_"),
    ((f"{ACTOR}.optim.optimizer=adamw",), f"Fix: {ACTOR}.optim.optimizer=AdamW"),
    ((*CRITIC, "critic.optim.optimizer=LAMB"), "torch.optim has none of this name. Fix: critic."),
    ((f"{ROLLOUT}.mode=sync",), f"{ROLLOUT}.mode='sync' is refused. Fix: set it to 'async'"),
    ((f"{ACTOR}.policy_loss.loss_mode=dro",), f"Fix: {ACTOR}.policy_loss.dro_beta=NUMBER, or"),
    ((f"{ROLLOUT}.agent.agent_loop_config_path=loops.yaml",), "loops.yaml': no such file. Fix: "),
    ((f"{ROLLOUT}.agent.agent_loop_manager_class=mine.Manager",), "there is no module 'mine'. Fix"),
    ((f"{ROLLOUT}.pipeline_model_parallel_size=2",), "pipeline_model_parallel_size=2"),
    ((f"{ACTOR}.fsdp_config.model_dtype=fp12",), f"{ACTOR}.fsdp_config.model_dtype='fp12' is ref"),
    ((f"{ACTOR}.fsdp_config.mixed_precision.param_dtype=fp12",), "mixed_precision={'param_dtype'"),
    ((f"{ACTOR}.fsdp_config.mixed_precision.params=fp32",), "'params': 'fp32'} is refused"),
    ((f"{ACTOR}.checkpoint.save_contents=[models]",), "save_contents=['models'] is refused"),
    ((f"{ACTOR}.checkpoint.save_contents=[]",), f"{ACTOR}.checkpoint.save_contents=[] is refused"),
    (("actor_rollout_ref.model.fused_kernel_options.impl_backend=cuda",), "impl_backend='cuda' is"),
    (("trainer.balance_batch=maybe",), "trainer.balance_batch='maybe' is refused"),
    ((f"{ROLLOUT}.ignore_eos=1",), f"{ROLLOUT}.ignore_eos=1 is refused. Fix: set it to a valid bo"),
    # Numbers and names that verl reads in the first update.
    ((f"{ACTOR}.kl_loss_coef=low",), f"{ACTOR}.kl_loss_coef='low' is refused"),
    (("algorithm.kl_ctrl.type=fixd",), "kl_ctrl.type='fixd' is refused. Fix: set it to 'fixed'"),
    (("algorithm.rollout_correction.rollout_is=tokn",), "Fix: set it to 'token' or 'sequence'"),
    (("algorithm.rollout_correction.rollout_rs=token_k9",), "set it to some of token_k1, token_k2"),
    (("actor_rollout_ref.model.lora_alpha=0",), "actor_rollout_ref.model.lora_alpha=0 is refused"),
    (("actor_rollout_ref.model.custom_chat_template='{% if %}'",),
     "its chat template fails (Expected an expression"),
    # Own agent loops that could not run.
    ((f"{ROLLOUT}.agent.agent_loop_config_path=<loops-no-yaml>",), "it is no YAML ("),
    ((f"{ROLLOUT}.agent.agent_loop_config_path=<loops-no-list>",), "it holds no list. Fix: a list"),
    ((f"{ROLLOUT}.agent.agent_loop_config_path=<loops-no-name>",), "lacks name or _target_. Fix: "),
    ((f"{ROLLOUT}.agent.agent_loop_config_path=<loops-no-module>",),
     "there is no module of mine's _target_ 'no_such.Loop'. Fix: package.module.Class"),
    ((f"{ROLLOUT}.agent.agent_loop_config_path=<loops>",
      f"{ROLLOUT}.agent.default_agent_loop=min"), "did you mean mine? one of single_turn_agent"),
    ((f"{ROLLOUT}.agent.agent_loop_manager_class=recipe.online_refiner.agent_loop.RefiningManger",),
     "has no class RefiningManger (did you mean RefiningManager?). Fix: "),
    ((f"{ROLLOUT}.agent.agent_loop_manager_class={VERLS_MANAGER}",), "it would refine nothing."),
    # Code of one's own that raises when it is loaded.
    ((f"{REWARD}.path=<no-python>",), "it could not be loaded (SyntaxError: "),
    # verl loads a file under no name, by which a dataclass would look for its own annotations.
    ((f"{REWARD}.path=<annotated>",), "it could not be loaded (AttributeError: "),
    ((f"{REWARD}.path=<raises>",), "it could not be loaded (RuntimeError: boom)"),
    # What verl has in its config for older releases' sake, and reads no more.
    (("custom_reward_function.path=mine.py",), "and reward.custom_reward_function.path in its"),
    (("reward_model.enable=true",), "reward_model.enable=True: verl 0.9.1 reads it no more"),
    (("reward_model.model.path=my/model",), "Fix: reward_model.model.path=null, and reward.rewa"),
    (("sandbox_fusion.url=http://judge",), "and reward.sandbox_fusion.url in its place"),
    # What would be cut, or overflow, in a step.
    ((f"{ROLLOUT}.prompt_length=8",), f"Fix: {ROLLOUT}.prompt_length="),
    ((f"{ROLLOUT}.response_length=8",), f"{ROLLOUT}.response_length=8: verl cuts there"),
    (("data.prompt_key=question",), "data.prompt_key='question' is refused. Fix: set it to 'prom"),
    (("transfer_queue.backend.SimpleStorage.total_storage_size=1",), "=1: a step has up to"),
    (("transfer_queue.backend.SimpleStorage=null",), "SimpleStorage=None: it is a section of keys"),
    (("ray_kwargs.ray_init.object_store_memory=1000",), "object_store_memory=1000 is refused"),
    # A Ray that counts what the node has.
    (("ray_kwargs.ray_init.num_gpus=null",), "num_gpus=null (0 here): the pools reserve 1"),
    # Fixes that led to another refusal.
    (("trainer.n_gpus_per_node=6",), "among 6 ranks. Fix: data.train_batch_size=6 actor_"),
    ((f"{ACTOR}.ppo_mini_batch_size=9",), f"Fix: {ACTOR}.ppo_mini_batch_size=8"),
    (("data.train_batch_size=24",), "above the 16 rows of data.train_files: no step would run. Fix:"
     " data.train_batch_size=16"),
]  # fmt: skip

LARGE = ("experiment=large_dapo_7b", "hardware=nodes8x80")
LARGEST = ("experiment=large_dapo_32b", "hardware=nodes8x80_32b")
PAPER = ("experiment=ppo_apps_dynamic", "hardware=gpu4x48")
MATH = ("experiment=dynamic_dapo_math_7b", "hardware=gpu8x80_long")
TENSOR, PIPELINE = "tensor_model_parallel_size", "pipeline_model_parallel_size"
ON_A_CLUSTER: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
    # Pools and nodes.
    (LARGE, ("refiner.placement=pool", "refiner.pool.n_gpus_per_node=8"), "machine.nodes=3"),
    (LARGE, ("trainer.n_gpus_per_node=16",),
     "Fix: trainer.n_gpus_per_node=8 trainer.nnodes=4"),
    (LARGE, ("refiner.placement=pool", "refiner.pool.n_gpus_per_node=16"),
     "Fix: refiner.pool.n_gpus_per_node=8 refiner.pool.nnodes=2"),
    # Sixteen GPUs in all, and no node holds both parts.
    (LARGE, ("trainer.n_gpus_per_node=5", "refiner.placement=pool",
             "refiner.pool.n_gpus_per_node=6"), "machine.nodes=3"),
    (("experiment=dapo_apps", "hardware=gpu4x48_reward_model"), (),
     "a hardware group without _reward_model"),
    # Cuts of the model.
    (LARGE, (f"{ACTOR}.megatron.{TENSOR}=8",), "has 28 attention heads, which 8 does not divide"),
    (LARGE, (f"{ACTOR}.megatron.{PIPELINE}=8",), "has 28 layers, which 8 stages"),
    (LARGEST, (f"{ACTOR}.megatron.{PIPELINE}=3",), "has 64 layers, which 3 stages"),
    # Megatron's factor on tokens is the context's alone, not 2 × 1 × 1 GPUs'.
    (LARGE, (f"{ACTOR}.ppo_max_token_len_per_gpu=4096",),
     f"{ACTOR}.ppo_max_token_len_per_gpu=4096: one row"),
    (MATH, (f"{ACTOR}.fsdp_config.fsdp_size=3",), f"Fix: {ACTOR}.fsdp_config.fsdp_size=-1"),
    (MATH, (f"{ROLLOUT}.n=64", "data.train_batch_size=1024"), "total_storage_size=100000: a step "),
    # Keys of another strategy.
    (("experiment=dapo_apps", "hardware=nodes8x80"), (),
     f"~{ACTOR}.optim.lr_scheduler_type takes it away; under Megatron set {ACTOR}.optim.lr_decay"),
    (LARGE, (f"{ACTOR}.optim.min_lr_ratio=0.1",), f"{ACTOR}.optim.min_lr (a learning rate"),
    # Long responses.
    (MATH, (f"{ACTOR}.ulysses_sequence_parallel_size=8",), "has 28 attention heads, which 8 does"),
    (MATH, (f"{ACTOR}.ulysses_sequence_parallel_size=1",), "one row of prompt and response has up"),
    (MATH, ("refiner.template=math-v1",), "math-blocks-v1, or a template file of your own"),
    (MATH, ("refiner.block_tokens=null",), "{before}, which would stand empty"),
    (MATH, ("data.max_response_length=2048",), "overlong_buffer_cfg.len=4096: the penalty would"),
    (MATH, ("data.gen_batch_size=1536",), "data.gen_batch_size=1536: with"),
    # Memory: fixes are those of the strategy.
    (LARGEST, ("machine.gpu_memory_gib=30",), f"a larger {ACTOR}.megatron.{TENSOR}"),
    (("experiment=large_dapo_32b", "hardware=nodes8x80_32b", "strategy=fsdp2_offload"),
     ("trainer.nnodes=2",), "Fix: lower it (and the critic's), strategy=megatron_tp8, or more"),
    (LARGEST, ("trainer.nnodes=1", "machine.nodes=1", "machine.host_memory_gib=200"),
     "machine.host_memory_gib=200: a node would hold"),
    (LARGEST, ("refiner.deadline_s=120",), "refiner.deadline_s=120: by the estimate refinements"),
    (LARGEST, ("refiner.deadline_s=120",), "gpu_memory_utilization, refiner.placement)"),
    (LARGEST, ("refiner.deadline_s=120", "refiner.placement=pool", "refiner.pool.n_gpus_per_node=8",
               "machine.nodes=5"), "more room for it (refiner.pool.nnodes, refiner.rollout.gpu_"),
    (LARGEST, ("refiner.step_deadline_s=600",),
     "refiner.step_deadline_s=600: by the estimate a step's mean refinement ends"),
    (LARGE, (f"{ROLLOUT}.{CACHE}=1000000000000",), f"{ROLLOUT}.{CACHE}=1000000000000: while"),
    (LARGE, (f"refiner.rollout.{CACHE}=1000000000000",),
     f"Fix: refiner.rollout.{CACHE}="),
    (LARGE, (f"refiner.rollout.{CACHE}=1000000000000", "refiner.placement=pool",
             "machine.nodes=3"), "a GPU of the refiner's own would hold"),
    (LARGE, ("machine.gpu_bandwidth_gb_s=0.0001",), "machine.gpu_bandwidth_gb_s=0.0001 is refused"),
    # The deadline that waits for the last is longer than any that may be set.
    (LARGEST, ("machine.gpu_bandwidth_gb_s=1", "trainer.nnodes=1", "machine.nodes=1",
               "data.max_response_length=16000",
               "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=18048"),
     "would be dropped. Fix: more room for it"),
    # Mathematics.
    (MATH, ("refiner.template=code-blocks-v1",), "mathematics. Fix: refiner.template=math-bl"),
    (MATH, ("refiner.template=code-v1", "refiner.block_tokens=null"), "refiner.template=math-v1"),
    (MATH, ("refiner.perfect_reward=0",), "refiner.perfect_reward=0: the reward goes up to 1"),
    (MATH, ("algorithm.filter_groups.metric=accuracy",), "=score, or one of score, reward, acc"),
    (MATH, (f"{ROLLOUT}.temperature=0",), f"Fix: {ROLLOUT}.temperature=1.0"),
    (PAPER, (f"{ROLLOUT}.max_model_len=32768", f"{ROLLOUT}.gpu_memory_utilization=0.12"),
     "tokens, under one sequence of 32768"),
]  # fmt: skip


MATH_32B = ("experiment=dynamic_dapo_math_32b", "hardware=nodes2x8x80_long")
WARNED: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
    (MATH, (f"{ACTOR}.optim.lr_warmup_steps=500",), "lr_warmup_steps=500: the run has 200 steps"),
    (MATH, ("trainer.total_training_steps=2",), "lr_warmup_steps=20: the run has 2 steps"),
    (MATH, (f"{ACTOR}.optim.lr=0",), f"{ACTOR}.optim.lr=0: nothing is learnt"),
    (MATH, (f"{ACTOR}.optim.clip_grad=0",), "gradients are scaled to a norm of 0"),
    (MATH, (f"{ACTOR}.optim.lr=0.01",), f"{ACTOR}.optim.lr=0.01: models of this size"),
    (MATH, (f"{ACTOR}.clip_ratio=0.1",), f"{ACTOR}.clip_ratio=0.1 is not read"),
    (MATH, (f"{ROLLOUT}.val_kwargs.do_sample=false", f"{ROLLOUT}.val_kwargs.temperature=0"),
     "answered 32 times by the same"),
    (MATH, ("refiner.perfect_reward=2",), "the reward goes up to 1 only"),
    (MATH, ("refiner.step_deadline_s=4200",), "step_deadline_s=4200: by the estimate the la"),
    (MATH_32B, (), "by the estimate the run takes 12,"),
]  # fmt: skip


RIGHT: list[tuple[str, ...]] = [
    (f"{ROLLOUT}.agent.agent_loop_config_path=<loops>", f"{ROLLOUT}.agent.default_agent_loop=mine"),
    (f"{ROLLOUT}.agent.agent_loop_config_path=<loops>",),
    ("actor_rollout_ref.model.external_lib=json", f"{ACTOR}.policy_loss.loss_mode=mine"),
    ("actor_rollout_ref.model.external_lib=json",
     f"{ROLLOUT}.agent.agent_loop_config_path=<loops>",
     f"{ROLLOUT}.agent.default_agent_loop=registered"),
    ("constraint.kind=none", f"{ROLLOUT}.agent.agent_loop_manager_class={VERLS_MANAGER}"),
    (f"{REWARD}.path=<a-partial>", f"{REWARD}.reward_kwargs=null", "refiner.perfect_reward=null"),
    ("algorithm.rollout_correction=null",),
    ("constraint.kind=none", "algorithm.rollout_correction.rollout_is=token",
     "algorithm.rollout_correction.rollout_rs=token_k1, seq_max_k2"),
    ("actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora_alpha=16"),
    *((f"algorithm.adv_estimator={name}",)
      for name in ("grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "opo")),
    ("data.train_batch_size=7", f"{ACTOR}.ppo_mini_batch_size=7"),
    (f"{ROLLOUT}.n=5",),
    ("constraint.lambda=0", "algorithm.gamma=1", f"{ROLLOUT}.temperature=1"),
]  # fmt: skip
"""Changes of the quickstart that an operator may well make, and that nothing refuses."""


def refused(config: DictConfig) -> list[str]:
    """The sentences that the preflight refuses a configuration with."""
    try:
        return faults_of(resolve(config))
    except ConfigError as error:
        return str(error).splitlines()


def of_cluster(
    config: DictConfig, folders: dict[str, str], data: Path, changes: tuple[str, ...]
) -> DictConfig:
    """The configuration on these data and a folder of its model's size, with the changes."""
    config.data.train_files = config.data.val_files = str(data)
    named = config.actor_rollout_ref.model.path
    size = next(size for size in ("32B", "7B", "1.5B") if size in named or size == "1.5B")
    config.actor_rollout_ref.model.path = folders[f"<{size}>"]
    change_keys(config, changes)
    return config


def change_keys(
    config: DictConfig, changes: Iterable[str], folders: dict[str, str] | None = None
) -> None:
    """Set keys as a command line would; names of `folders` stand for their paths."""
    for change in changes:
        key, _, value = change.partition("=")
        value = (folders or {}).get(value, value)
        OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)


FILES = {
    "loops": ("loops.yaml", f"- name: mine\n  _target_: {VERLS_MANAGER}\n"),
    "loops-no-yaml": ("no_yaml.yaml", "a: [1\n"),
    "loops-no-list": ("no_list.yaml", "name: mine\n"),
    "loops-no-name": ("no_name.yaml", f"- _target_: {VERLS_MANAGER}\n"),
    "loops-no-module": ("no_module.yaml", "- name: mine\n  _target_: no_such.Loop\n"),
    "no-python": ("no_python.py", "def compute_score(:\n"),
    "raises": ("raises.py", "raise RuntimeError('boom')\n"),
    "a-partial": (
        "a_partial.py",
        "import functools\n\ndef of(bonus, data_source, solution_str, ground_truth, **rest):\n"
        "    return bonus\n\ncompute_score = functools.partial(of, 1.0)\n",
    ),
    "annotated": (
        "annotated.py",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Fixed:\n    worth: float = 1.0\n"
        "    def __call__(self, data_source, solution_str, ground_truth, extra_info=None):\n"
        "        return self.worth\n\ncompute_score = Fixed()\n",
    ),
    "annotated-constraint": (
        "annotated_constraint.py",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from recipe.online_refiner.method.constraint import Constraint\n\n"
        "@dataclass\nclass Part:\n    worth: float = 1.0\n\nclass Mine(Constraint):\n    pass\n",
    ),
}
"""Files of agent loops and rewards, some of them wrong, by the name that overrides give them."""


def wrong_folders(root: Path) -> dict[str, str]:
    """Files and folders that are wrong in one respect, or have a real model's sizes: `<name>`."""
    wrong: dict[str, dict[str, Any]] = {
        "small-vocabulary": {"vocab_size": 100},
        "other-tokenizer": {"swapped": True},
        "short-context": {"max_position_embeddings": 64},
        "classifier": SCORES,
        "two-labels": SCORES | {"num_labels": 2},
    }
    found = {f"<{name}>": str(model_folder(root / name, **keys)) for name, keys in wrong.items()}
    for name, (file, text) in FILES.items():
        (root / file).write_text(text)
        found[f"<{name}>"] = str(root / file)
    sized = {f"<{name.split('-')[-2]}>": sizes_of(name) for name in SIZES if "Qwen" in name}
    return found | {
        name: str(model_folder(root / name[1:-1], **keys)) for name, keys in sized.items()
    }
