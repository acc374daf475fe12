from protquant.reporting.machine import Machine, describe_machine

__all__ = ["Machine", "describe_machine"]
