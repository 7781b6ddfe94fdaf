"""What needs a real vLLM is looked at where there is one."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("vllm") else ["vllm_real"]
