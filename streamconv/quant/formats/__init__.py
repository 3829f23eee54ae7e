"""The block formats, one module each, as the type table (``types.py``) names them; an underscore begins what several share."""
