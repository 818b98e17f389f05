// The https module with its default agent: fetch.js HOST PORT TIMES. NODE_EXTRA_CA_CERTS names the authority.
'use strict';
const https = require('node:https');
const [host, port, times] = process.argv.slice(2);
const lookup = (_name, options, found) =>
  options.all ? found(null, [{ address: '127.0.0.1', family: 4 }]) : found(null, '127.0.0.1', 4);

function fetch(left) {
  if (left === 0) return;
  const request = https.get({ host, port, path: '/', lookup, timeout: 10000 }, (response) => {
    response.resume();
    response.on('close', () => fetch(left - 1));
  });
  request.on('error', () => fetch(left - 1)); // the server may hang up
}
fetch(Number(times));
