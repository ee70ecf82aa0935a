// The document inside a host that shows MCP Apps: the run of one call.

import { start } from "./app.js";
import { hostSource } from "./host-source.js";

start(hostSource());
