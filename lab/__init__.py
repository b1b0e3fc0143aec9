"""The rules: configuration, ledger, git, policy, queue, executors and the referee. No torch."""
