-- Load for wrk, in the AWS wire protocol or etcd's JSON gateway, chosen by environment variables:
-- BENCH_OPERATION (get_strong get_eventual put update query), BENCH_DIALECT (dynamodb etcd),
-- BENCH_KEYS (how many keys), BENCH_TOKEN (marks what this run wrote).
local operation = os.getenv("BENCH_OPERATION")
local dialect = os.getenv("BENCH_DIALECT")
local keys = tonumber(os.getenv("BENCH_KEYS"))
local token = os.getenv("BENCH_TOKEN")
local pad = string.rep("x", 40)
local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(data)
  local out = {}
  for i = 1, #data, 3 do
    local a, b, c = data:byte(i, i + 2)
    local n = a * 65536 + (b or 0) * 256 + (c or 0)
    for k = 3, 0, -1 do
      local v = math.floor(n / 64 ^ k) % 64
      if (k == 1 and not b) or (k == 0 and not c) then out[#out + 1] = "="
      else out[#out + 1] = alphabet:sub(v + 1, v + 1) end
    end
  end
  return table.concat(out)
end

local thread_number = 0
function setup(thread) thread:set("seed", thread_number) thread_number = thread_number + 1 end

local targets = {
  get_strong = "GetItem", get_eventual = "GetItem", put = "PutItem", update = "UpdateItem", query = "Query",
}
local headers = { ["Content-Type"] = "application/x-amz-json-1.0" }
if dialect == "dynamodb" then
  headers["X-Amz-Target"] = "DynamoDB_20120810." .. targets[operation]
  headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/dynamodb/aws4_request, "
    .. "SignedHeaders=host;x-amz-date;x-amz-target, Signature=" .. string.rep("0", 64)
  headers["X-Amz-Date"] = "20260101T000000Z"
else
  headers["Content-Type"] = "application/json"
end

local function dynamodb(n)
  if operation == "get_strong" then
    return string.format('{"TableName":"bench","Key":{"pk":{"S":"k%06d"}},"ConsistentRead":true}', n)
  elseif operation == "get_eventual" then
    return string.format('{"TableName":"bench","Key":{"pk":{"S":"k%06d"}}}', n)
  elseif operation == "put" then
    return string.format(
      '{"TableName":"bench","Item":{"pk":{"S":"k%06d"},"f0":{"S":"%s"},"f1":{"S":"%s"},"t":{"S":"%s"}}}',
      n, pad, pad, token)
  elseif operation == "update" then
    return string.format('{"TableName":"bench","Key":{"pk":{"S":"u%06d"}},"UpdateExpression":"ADD v :n",'
      .. '"ExpressionAttributeValues":{":n":{"N":"1"}}}', n)
  end
  return string.format('{"TableName":"bench_query","KeyConditionExpression":"pk = :p","Limit":20,'
    .. '"ConsistentRead":true,"ExpressionAttributeValues":{":p":{"S":"q%04d"}}}', n % 100)
end

local function etcd(n)
  if operation == "put" then
    local value = pad .. pad .. token
    return "/v3/kv/put", string.format('{"key":"%s","value":"%s"}', base64(string.format("k%06d", n)), base64(value))
  elseif operation == "query" then
    local first = string.format("q%04d", n % 100)
    return "/v3/kv/range", string.format('{"key":"%s","range_end":"%s","limit":20}',
      base64(first .. "/"), base64(first .. "0"))
  end
  local serializable = operation == "get_eventual" and ',"serializable":true' or ""
  return "/v3/kv/range", string.format('{"key":"%s"%s}', base64(string.format("k%06d", n)), serializable)
end

-- Requests are built once: the load must not cost more than what it measures.
local prepared = {}

function init()
  math.randomseed((seed or 0) * 7919 + os.time())
  for n = 0, keys - 1 do
    if dialect == "etcd" then
      local path, body = etcd(n)
      prepared[#prepared + 1] = wrk.format("POST", path, headers, body)
    else
      prepared[#prepared + 1] = wrk.format("POST", "/", headers, dynamodb(n))
    end
  end
end

function request()
  return prepared[math.random(#prepared)]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
