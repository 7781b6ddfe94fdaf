"""All concurrency: threads, calls of event loops in threads, shared downloads, and what a fork leaves."""
