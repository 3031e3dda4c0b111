"""Reproductions of studies: models x data sets x protocols in one YAML file, published against measured
figures.
"""
