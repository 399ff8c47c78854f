// Some scenarios of the suite drop the query of the address that they are given, and with it the token: what comes here
// goes on to the address's server with the token as a header, and nothing else changes.
//   node with-token.mjs http://HOST:PORT/PATH?token=TOKEN     prints the address to use instead
import http from "node:http";

const target = new URL(process.argv[2]);
const token = target.searchParams.get("token");
const server = http.createServer((request, response) => {
    const headers = [...request.rawHeaders, "Authorization", `Bearer ${token}`];
    const options = { host: target.hostname, port: target.port, path: request.url, method: request.method, headers };
    const onward = http.request(options, (answer) => {
        response.writeHead(answer.statusCode, answer.rawHeaders);
        answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
});
server.listen(0, "127.0.0.1", () => {
    console.log(`http://127.0.0.1:${server.address().port}${target.pathname}`);
});
