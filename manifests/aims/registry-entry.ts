// Generated from skill.md by python -m scripts.generate. Put this into the list of skills of AIMS's registry.

export const kimiSkill = {
  "id": "kimi-k2.5",
  "name": "Kimi K2.5 — Visual Agentic Model",
  "type": "skill",
  "status": "active",
  "triggers": [
    "kimi",
    "kimi k2.5",
    "moonshot",
    "multimodal agent",
    "vision agent",
    "agent swarm",
    "visual reasoning",
    "video input",
    "1 trillion"
  ],
  "description": "Ask Moonshot's Kimi K2.5 and its family: deep reasoning with its reasoning returned, quick answers, pictures and clips, swarms of agents, under a policy that keeps the model's documented rules.",
  "execution": {
    "target": "mcp",
    "route": "",
    "command": "kimi-mcp"
  },
  "priority": "high",
  "definitionFile": "kimi-k2.5.skill.md",
  "icon": "moon",
  "color": "#1a73e8"
} as const;
