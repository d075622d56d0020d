"""Jobs: work that several processes and hosts share, on top of Optuna's storages."""
