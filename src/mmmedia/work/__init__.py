"""All concurrency: cores, threads, calls of event loops in threads, shared downloads, and what a fork leaves."""
