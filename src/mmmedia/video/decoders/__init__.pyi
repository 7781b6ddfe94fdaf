from . import opencv as opencv, plan as plan, pyav as pyav
from .stats import DecodeStats as DecodeStats, decode_stats as decode_stats
