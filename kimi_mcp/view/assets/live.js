// The page of a server.

import { start } from "./app.js";
import { ListPage } from "./list.js";
import { liveSource } from "./source.js";

start(liveSource(document.documentElement.dataset.base), ListPage);
