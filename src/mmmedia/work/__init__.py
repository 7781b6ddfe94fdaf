"""All concurrency: cores, pools of threads, calls from event loops, shared downloads, forks."""
