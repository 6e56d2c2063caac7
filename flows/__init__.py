"""When it is done: the Prefect flow over DVC's stages, and the command line. No data logic here."""
