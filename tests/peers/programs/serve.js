// The https module: serve.js CERTIFICATE.pem. It tells its port, and ends with its input.
'use strict';
const fs = require('node:fs');
const https = require('node:https');
const pem = fs.readFileSync(process.argv[2]);
const server = https.createServer({ key: pem, cert: pem }, (request, response) => {
  response.setHeader('Connection', 'close');
  response.end(request.socket.getProtocol() + '\n');
});
server.listen(0, '127.0.0.1', () => console.log('PORT ' + server.address().port));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
