"""The page that scores photographs in a browser, as a folder for any server; its scripts are built from ``web/``."""
