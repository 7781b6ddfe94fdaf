from . import index as index, opencv as opencv, plan as plan, pool as pool, pyav as pyav
from .stats import DecodeStats as DecodeStats, decode_stats as decode_stats
