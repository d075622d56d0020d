"""The console script `augkit`: all commands by their names, shell completion, and a check of the installation."""
