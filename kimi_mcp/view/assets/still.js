// The page of a file: one run, as it was.

import { start } from "./app.js";
import { stillSource } from "./still-source.js";

start(stillSource());
