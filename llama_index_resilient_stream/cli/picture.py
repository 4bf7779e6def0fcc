def draw() -> str: return ""
