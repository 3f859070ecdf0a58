"""The processes of Busbar, one package each: `python -m services.<name>`.

Services meet on topics only; none imports another.
"""
