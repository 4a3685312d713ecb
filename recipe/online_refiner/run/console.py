"""What the processes of a run say while it goes on."""

import logging

OUR_PACKAGES = ("recipe", "refiner_worker", "reward")


def show_our_log() -> None:
    """Write what our packages log, from INFO on, to this process's standard error.

    Importing the engines sets the root logger's handlers to errors only; Ray brings the standard
    error of every process to the driver.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s:%(asctime)s:%(message)s"))
    for package in OUR_PACKAGES:
        package_logger = logging.getLogger(package)
        package_logger.setLevel(logging.INFO)
        package_logger.handlers = [handler]
        package_logger.propagate = False
