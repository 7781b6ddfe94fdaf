from . import opencv as opencv, pyav as pyav
