// For servers that can be told a port but not an address: whatever listens in this process does so on loopback alone.
import net from "node:net";

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const callback = rest.find((each) => typeof each === "function");
  return listen.call(this, Number(port), "127.0.0.1", callback);
};
