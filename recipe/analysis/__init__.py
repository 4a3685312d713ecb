"""Run folder to tables and figures; reads what a run left behind and imports nothing of the
trainer.
"""
